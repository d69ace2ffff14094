#include "sink.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#include "thread_pool.hpp"

namespace metaindex {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr int64_t kAtOnce = 64;

// Most documents of a long scan are not among the best: one comparison of vectors passes over many of them.
bool any_wanted(const TopK& best, const float* scores, int64_t count) {
    int wanted = 0;
    for (int64_t i = 0; i < count; ++i) wanted |= best.wants(scores[i]);
    return wanted != 0;
}

}  // namespace

Sink::Sink(const Slab& slab, Answer answer, int workers) : slab_(slab), answer_(answer), workers_(workers) {
    if (keeps_best()) best_.assign(static_cast<size_t>(workers * slab.queries()), TopK(answer.width));
}

void Sink::leave_out(int64_t first, int64_t count) {
    if (keeps_best()) return;
    for (int64_t query = 0; query < slab_.queries(); ++query) {
        std::fill_n(answer_.scores + (slab_.first_query() + query) * answer_.width + first, count, kNothing);
    }
}

template <class Where>
void Sink::take_each(int worker, int64_t query, const DocumentScorer& scorer, int64_t count, Where where) {
    const Lanes lanes = slab_.lanes(query);
    float* scores = answer_.scores + (slab_.first_query() + query) * answer_.width;
    TopK* best = keeps_best() ? &best_[static_cast<size_t>(worker * slab_.queries() + query)] : nullptr;
    const Maxima maxima = scorer.best(lanes);
    for (int64_t first = 0; first < count; first += kAtOnce) {
        float some[kAtOnce];
        const int64_t here = std::min(kAtOnce, count - first);
        slab_.score({maxima.first + first * maxima.document_stride, maxima.document_stride, maxima.lane_stride}, lanes, here,
                    some);
        for (int64_t i = 0; i < here; ++i) some[i] = some[i] == some[i] ? some[i] : kNothing;  // NaN has no place in an order
        if (best && !any_wanted(*best, some, here)) continue;
        for (int64_t i = 0; i < here; ++i) {
            const Document document = where(first + i);
            if (!best) {
                scores[document.place] = some[i];
            } else if (best->wants(some[i])) {
                best->push(some[i], document.segment->sequence[document.row], document.segment->first_row + document.row);
            }
        }
    }
}

void Sink::take(int worker, int64_t query, const DocumentScorer& scorer, const Segment& segment, int64_t first, int64_t count) {
    take_each(worker, query, scorer, count,
              [&](int64_t i) { return Document{&segment, first + i, segment.first_row + first + i}; });
}

void Sink::take(int worker, int64_t query, const DocumentScorer& scorer, const Document* documents, int64_t count) {
    take_each(worker, query, scorer, count, [&](int64_t i) { return documents[i]; });
}

void Sink::finish(int num_threads) {
    if (!keeps_best()) return;
    std::atomic<int64_t> next{0};
    parallel(static_cast<int>(std::min<int64_t>(num_threads, slab_.queries())), [&](int) {
        for (int64_t query; (query = next++) < slab_.queries();) {
            std::vector<Entry> entries;
            for (int worker = 0; worker < workers_; ++worker) {
                const auto& held = best_[static_cast<size_t>(worker * slab_.queries() + query)].entries();
                entries.insert(entries.end(), held.begin(), held.end());
            }
            const int64_t at = (slab_.first_query() + query) * answer_.width;
            write_best(entries, answer_.width, answer_.scores + at, answer_.rows + at);
        }
    });
}

}  // namespace metaindex
