// Where the scores of a slab go: every score to its place, or the best of each query.
#pragma once

#include <vector>

#include "document_scorer.hpp"
#include "metaindex/maxsim.hpp"
#include "metaindex/topk.hpp"
#include "slab.hpp"

namespace metaindex {

class Sink {
 public:
    Sink(const Slab& slab, Answer answer, int workers);

    bool keeps_best() const { return answer_.rows != nullptr; }
    // Marks places [first, first + count) of every query as left out.
    void leave_out(int64_t first, int64_t count);
    // The scores of one query with `count` documents that `scorer` has just scored.
    void take(int worker, int64_t query, const DocumentScorer& scorer, const Segment& segment, int64_t first, int64_t count);
    void take(int worker, int64_t query, const DocumentScorer& scorer, const Document* documents, int64_t count);
    // Merges what the workers hold into the answer.
    void finish(int num_threads);

 private:
    template <class Where>
    void take_each(int worker, int64_t query, const DocumentScorer& scorer, int64_t count, Where where);

    const Slab& slab_;
    Answer answer_;
    int workers_;
    std::vector<TopK> best_;  // [workers][queries]
};

}  // namespace metaindex
