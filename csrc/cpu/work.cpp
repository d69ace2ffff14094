#include "work.hpp"

#include <algorithm>

#include "slab.hpp"
#include "tile.hpp"

namespace metaindex {
namespace {

constexpr int64_t kPieceBytes = 1024 * 1024;
constexpr int64_t kMaximaBytes = 256 * 1024;
constexpr int64_t kHeldBytes = 64 * 1024 * 1024;
constexpr int64_t kHeldEntryBytes = 48;  // an entry, and its copy while the threads' entries are merged

}  // namespace

int64_t budget_tokens(const LevelTable& table, int64_t r_c) {
    return table.widths.empty() ? 0 : std::min(r_c, table.starts.back() + table.widths.back());
}

int64_t slab_end(const QueryBatch& queries, int64_t r_q, int64_t first, bool apart, Answer answer, int64_t documents,
                 int num_threads) {
    const int64_t held = std::min(documents, (2 * answer.width + 256) * num_threads) * kHeldEntryBytes;
    const int64_t most = answer.rows ? std::max<int64_t>(1, kHeldBytes / std::max<int64_t>(1, held)) : queries.batch;
    int64_t lanes = 0, last = first;
    for (; last < queries.batch && last - first < most; ++last) {
        const int64_t count = std::min<int64_t>(queries.lengths[last], r_q);
        lanes += apart ? (count + kLanes - 1) / kLanes * kLanes : count;
        if (last > first && lanes > kMaxSlabLanes) break;
    }
    return last;
}

int64_t piece_size(int64_t documents, int64_t document_bytes, int64_t groups, int num_threads) {
    const int64_t by_tokens = kPieceBytes / std::max<int64_t>(1, document_bytes);
    const int64_t by_maxima = kMaximaBytes / std::max<int64_t>(1, groups * kLanes * 4);
    const int64_t by_threads = num_threads > 1 ? documents / (8 * num_threads) : documents;
    return std::clamp<int64_t>(std::min({by_tokens, by_maxima, by_threads}), 1, 4096);
}

double multiplications(int64_t documents, int64_t tokens, int64_t dim, int64_t groups) {
    return static_cast<double>(documents) * static_cast<double>(tokens * dim * groups * kLanes);
}

int useful_threads(int num_threads, int64_t pieces, double multiplications, int64_t worth_a_thread) {
    const double worth = std::min(1.0 + multiplications / static_cast<double>(worth_a_thread), 4096.0);
    return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>({num_threads, pieces, static_cast<int64_t>(worth)})));
}

}  // namespace metaindex
