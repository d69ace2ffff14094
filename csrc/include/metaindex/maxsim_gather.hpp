// Scores queries against listed documents, each read where it lies.
#pragma once

#include "metaindex/maxsim.hpp"

namespace metaindex {

// Snapshot rows [lists, count]: one list per query, or one for all. -1 is no document.
struct Candidates {
    const int64_t* rows;
    int64_t lists;
    int64_t count;
};

// As maxsim_scan, over the listed documents. In scores without rows, place c of the answer is place c of the list. Among the
// best, a document that is listed twice counts once. The same bounds on working memory hold.
void maxsim_gather(const LevelTable& table, const QueryBatch& queries, Budget budget, Candidates candidates,
                   const uint8_t* allow, Answer answer, Run run);

}  // namespace metaindex
