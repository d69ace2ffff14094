#include "metaindex/maxsim_gather.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "sink.hpp"
#include "thread_pool.hpp"
#include "work.hpp"

namespace metaindex {
namespace {

// Marks the places of a list that name a document named before, by a table of places with open addressing.
void mark_repeats(const int64_t* rows, int64_t count, uint8_t* repeated) {
    size_t slots = 16;
    while (slots < 2 * static_cast<size_t>(count)) slots *= 2;
    std::vector<int64_t> seen(slots, -1);
    for (int64_t c = 0; c < count; ++c) {
        repeated[c] = 0;
        if (rows[c] < 0) continue;
        size_t at = static_cast<size_t>(static_cast<uint64_t>(rows[c]) * 0x9E3779B97F4A7C15u >> 20) & (slots - 1);
        for (; seen[at] >= 0; at = (at + 1) & (slots - 1)) {
            if (seen[at] == rows[c]) {
                repeated[c] = 1;
                break;
            }
        }
        if (!repeated[c]) seen[at] = rows[c];
    }
}

Document locate(const LevelTable& table, int64_t row, int64_t place) {
    const Segment* segment = &table.segments.front();
    if (table.segments.size() > 1) {
        const auto after = std::upper_bound(table.segments.begin(), table.segments.end(), row,
                                            [](int64_t value, const Segment& each) { return value < each.first_row; });
        segment = &*(after - 1);
    }
    return {segment, row - segment->first_row, place};
}

// Multiplications. With any kernel, scattered documents take longer to come than to be multiplied.
constexpr int64_t kWorthAThread = 8'000'000;

class Gather {
 public:
    Gather(const LevelTable& table, Candidates candidates, const uint8_t* allow, bool once)
        : table_(table), candidates_(candidates), allow_(allow), once_(once) {}

    // Scores lists [first, first + lists) of the slab's queries, or the one list of all.
    void run(const Slab& slab, int64_t r_c, Answer answer, int num_threads) {
        const bool apart = candidates_.lists > 1;
        const int64_t lists = apart ? slab.queries() : 1;
        const int64_t first_list = apart ? slab.first_query() : 0;
        const int64_t groups = apart ? widest(slab) : slab.groups();
        const int64_t tokens = budget_tokens(table_, r_c);
        const int64_t size = piece_size(lists * candidates_.count, tokens * table_.token_bytes(), groups, num_threads);
        const int64_t pieces = (candidates_.count + size - 1) / size;
        const double work = multiplications(lists * candidates_.count, tokens, table_.dim, groups);
        const int threads = useful_threads(num_threads, lists * pieces, work, kWorthAThread);
        if (once_) mark(first_list, lists, threads);
        Sink sink(slab, answer, threads);
        std::atomic<int64_t> next{0};
        parallel(threads, [&](int worker) {
            DocumentScorer scorer(table_, slab, r_c, groups, size);
            std::vector<Document> documents;
            for (int64_t at; (at = next++) < lists * pieces;) {
                const int64_t list = at / pieces, first = at % pieces * size;
                find(first_list, list, first, std::min(size, candidates_.count - first), documents);
                if (apart) {
                    const Lanes& lanes = slab.lanes(list);
                    scorer.select(lanes.first / kLanes, lanes.count);
                } else {
                    scorer.select(0, slab.used_lanes());
                }
                const auto count = static_cast<int64_t>(documents.size());
                if (count) scorer.score(documents.data(), count);
                for (int64_t query = apart ? list : 0; query < (apart ? list + 1 : slab.queries()); ++query) {
                    sink.take(worker, query, scorer, documents.data(), count);
                }
            }
        });
        sink.finish(num_threads);
    }

 private:
    static int64_t widest(const Slab& slab) {
        int64_t most = 0;
        for (int64_t query = 0; query < slab.queries(); ++query) most = std::max(most, slab.lanes(query).count);
        return (most + kLanes - 1) / kLanes;
    }

    void mark(int64_t first_list, int64_t lists, int num_threads) {
        if (first_list == marked_ && !repeated_.empty()) return;  // the one list of all, marked for an earlier slab
        marked_ = first_list;
        repeated_.resize(static_cast<size_t>(lists * candidates_.count));
        std::atomic<int64_t> next{0};
        parallel(static_cast<int>(std::min<int64_t>(num_threads, lists)), [&](int) {
            for (int64_t list; (list = next++) < lists;) {
                mark_repeats(candidates_.rows + (first_list + list) * candidates_.count, candidates_.count,
                             repeated_.data() + list * candidates_.count);
            }
        });
    }

    void find(int64_t first_list, int64_t list, int64_t first, int64_t count, std::vector<Document>& documents) const {
        documents.clear();
        const int64_t* rows = candidates_.rows + (first_list + list) * candidates_.count;
        for (int64_t c = first; c < first + count; ++c) {
            if (rows[c] < 0 || (allow_ && !allow_[rows[c]])) continue;
            if (once_ && repeated_[static_cast<size_t>(list * candidates_.count + c)]) continue;
            documents.push_back(locate(table_, rows[c], c));
        }
    }

    const LevelTable& table_;
    Candidates candidates_;
    const uint8_t* allow_;
    bool once_;
    int64_t marked_ = -1;
    std::vector<uint8_t> repeated_;
};

void check(const LevelTable& table, Candidates candidates) {
    const int64_t rows = table.rows();
    for (int64_t i = 0; i < candidates.lists * candidates.count; ++i) {
        if (candidates.rows[i] < -1 || candidates.rows[i] >= rows) {
            throw std::invalid_argument("candidates: expected rows in 0.." + std::to_string(rows - 1) + " or -1, got " +
                                        std::to_string(candidates.rows[i]));
        }
    }
}

}  // namespace

void maxsim_gather(const LevelTable& table, const QueryBatch& queries, Budget budget, Candidates candidates,
                   const uint8_t* allow, Answer answer, Run run) {
    check(table, candidates);
    const bool keeps_best = answer.rows != nullptr;
    const bool apart = candidates.lists > 1;
    if (!keeps_best) std::fill_n(answer.scores, queries.batch * answer.width, -std::numeric_limits<float>::infinity());
    Gather gather(table, candidates, allow, keeps_best);
    for (int64_t first = 0; first < queries.batch;) {
        const int64_t last = slab_end(queries, budget.r_q, first, apart, answer, candidates.count, run.num_threads);
        int64_t lanes = 0;
        for (int64_t b = first; b < last; ++b) {
            const int64_t count = std::min<int64_t>(queries.lengths[b], budget.r_q);
            lanes = apart ? std::max(lanes, count) : lanes + count;
        }
        const TileKernel& kernel = kernel_for(run.isa, table.codec, lanes);
        const Slab slab(queries, table.codec, table.dim, budget.r_q, kernel, first, last, apart);
        gather.run(slab, budget.r_c, answer, run.num_threads);
        first = last;
    }
}

}  // namespace metaindex
