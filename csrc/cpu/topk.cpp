#include "metaindex/topk.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#include "thread_pool.hpp"

namespace metaindex {

void TopK::append(const Entry& entry) {
    if (k_ == 0) return;
    entries_.push_back(entry);
    // Selecting only once as many again have come keeps the cost of a push constant.
    if (static_cast<int64_t>(entries_.size()) < std::max<int64_t>(2 * k_, k_ + 256)) return;
    const auto kth = entries_.begin() + (k_ - 1);
    std::nth_element(entries_.begin(), kth, entries_.end(), better);
    threshold_ = kth->score;
    entries_.resize(static_cast<size_t>(k_));
}

void write_best(std::vector<Entry>& entries, int64_t k, float* scores, int64_t* rows) {
    const int64_t kept = std::min<int64_t>(k, static_cast<int64_t>(entries.size()));
    std::partial_sort(entries.begin(), entries.begin() + kept, entries.end(), better);
    for (int64_t i = 0; i < kept; ++i) {
        scores[i] = entries[static_cast<size_t>(i)].score;
        rows[i] = entries[static_cast<size_t>(i)].row;
    }
    std::fill(scores + kept, scores + k, -std::numeric_limits<float>::infinity());
    std::fill(rows + kept, rows + k, -1);
}

void topk(const float* scores, int64_t batch, int64_t count, const int64_t* sequence, int64_t k, float* best_scores,
          int64_t* best_rows, int num_threads) {
    std::atomic<int64_t> next{0};
    parallel(static_cast<int>(std::min<int64_t>(num_threads, batch)), [&](int) {
        for (int64_t b; (b = next++) < batch;) {
            TopK best(k);
            for (int64_t c = 0; c < count; ++c) {
                const float score = scores[b * count + c];
                if (score > -std::numeric_limits<float>::infinity()) best.push(score, sequence ? sequence[c] : c, c);
            }
            std::vector<Entry> entries = best.entries();
            write_best(entries, k, best_scores + b * k, best_rows + b * k);
        }
    });
}

}  // namespace metaindex
