#include "metaindex/maxsim_scan.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "dispatch.hpp"
#include "sink.hpp"
#include "thread_pool.hpp"
#include "work.hpp"

namespace metaindex {
namespace {

struct Piece {
    const Segment* segment;
    int64_t first;
    int64_t count;
};

std::vector<Piece> cut(const LevelTable& table, int64_t size) {
    std::vector<Piece> pieces;
    for (const Segment& segment : table.segments) {
        for (int64_t first = 0; first < segment.rows; first += size) {
            pieces.push_back({&segment, first, std::min(size, segment.rows - first)});
        }
    }
    return pieces;
}

// The allowed documents of a piece.
void list_allowed(const Piece& piece, const uint8_t* allow, std::vector<Document>& documents) {
    documents.clear();
    for (int64_t row = piece.first; row < piece.first + piece.count; ++row) {
        const int64_t place = piece.segment->first_row + row;
        if (allow[place]) documents.push_back({piece.segment, row, place});
    }
}

void scan(const LevelTable& table, const Slab& slab, int64_t r_c, const uint8_t* allow, Answer answer, int num_threads) {
    const int64_t tokens = budget_tokens(table, r_c);
    const int64_t size = piece_size(table.rows(), tokens * table.token_bytes(), slab.groups(), num_threads);
    const std::vector<Piece> pieces = cut(table, size);
    const double work = multiplications(table.rows(), tokens, table.dim, slab.groups());
    const int threads = useful_threads(num_threads, static_cast<int64_t>(pieces.size()), work, slab.kernel().worth_a_thread);
    Sink sink(slab, answer, threads);
    std::atomic<size_t> next{0};
    parallel(threads, [&](int worker) {
        DocumentScorer scorer(table, slab, r_c, slab.groups(), size);
        std::vector<Document> documents;
        for (size_t at; (at = next++) < pieces.size();) {
            const Piece& piece = pieces[at];
            const int64_t first_row = piece.segment->first_row + piece.first;
            if (!allow || !std::memchr(allow + first_row, 0, static_cast<size_t>(piece.count))) {
                scorer.score(*piece.segment, piece.first, piece.count);
                for (int64_t query = 0; query < slab.queries(); ++query) {
                    sink.take(worker, query, scorer, *piece.segment, piece.first, piece.count);
                }
                continue;
            }
            sink.leave_out(first_row, piece.count);
            list_allowed(piece, allow, documents);
            const auto count = static_cast<int64_t>(documents.size());
            if (!count) continue;
            scorer.score(documents.data(), count);
            for (int64_t query = 0; query < slab.queries(); ++query) sink.take(worker, query, scorer, documents.data(), count);
        }
    });
    sink.finish(num_threads);
}

}  // namespace

void maxsim_scan(const LevelTable& table, const QueryBatch& queries, Budget budget, const uint8_t* allow, Answer answer,
                 Run run) {
    for (int64_t first = 0; first < queries.batch;) {
        const int64_t last = slab_end(queries, budget.r_q, first, false, answer, table.rows(), run.num_threads);
        int64_t lanes = 0;
        for (int64_t b = first; b < last; ++b) lanes += std::min<int64_t>(queries.lengths[b], budget.r_q);
        const TileKernel& kernel = kernel_for(run.isa, table.codec, lanes);
        const Slab slab(queries, table.codec, table.dim, budget.r_q, kernel, first, last, false);
        scan(table, slab, budget.r_c, allow, answer, run.num_threads);
        first = last;
    }
}

}  // namespace metaindex
