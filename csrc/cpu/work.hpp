// How a request is cut: queries into slabs, documents into pieces, pieces onto threads. Pure functions of sizes.
#pragma once

#include "metaindex/maxsim.hpp"

namespace metaindex {

// The tokens and bytes that a document takes at a budget, at most.
int64_t budget_tokens(const LevelTable& table, int64_t r_c);

// Where the slab that starts at query `first` ends. With `apart`, each query takes whole groups of lanes.
// `documents` is how many a query may hold in its answer.
int64_t slab_end(const QueryBatch& queries, int64_t r_q, int64_t first, bool apart, Answer answer, int64_t documents,
                 int num_threads);

// How many documents a thread takes at once: enough to make taking them cheap, few enough that threads end together and the
// running maxima stay in the second-level cache.
int64_t piece_size(int64_t documents, int64_t document_bytes, int64_t groups, int num_threads);

// That documents of so many tokens take, with groups of lanes filled up.
double multiplications(int64_t documents, int64_t tokens, int64_t dim, int64_t groups);

// No more threads than the work is worth waking them for: another one for each `worth_a_thread` multiplications.
int useful_threads(int num_threads, int64_t pieces, double multiplications, int64_t worth_a_thread);

}  // namespace metaindex
