// Scores queries against every document: sum_{i < r_q} max_{j < r_c} <q_i, d_j>, accumulated in float32 (int32 for int8 codes).
#pragma once

#include "metaindex/maxsim.hpp"

namespace metaindex {

// `allow` [rows] may be null; documents where it is zero are left out and never read.
// Results are bitwise the same for any number of threads.
//
// Working memory: queries are taken in slabs of at most 1,024 tokens (or one query, if that is longer), so packed queries take
// at most 4 * 1,024 * dim bytes, running maxima 256 KB per thread, and the best of a query 24 bytes for each of at most
// min(rows, 2 k per thread) documents; a slab takes only as many queries as keep that sum below 64 MB.
void maxsim_scan(const LevelTable& table, const QueryBatch& queries, Budget budget, const uint8_t* allow, Answer answer,
                 Run run);

}  // namespace metaindex
