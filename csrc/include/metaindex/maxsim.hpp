// What maxsim_scan and maxsim_gather share: the question and where the answer goes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "metaindex/isa.hpp"
#include "metaindex/levels.hpp"

namespace metaindex {

// Encoded queries, contiguous: codes [batch, tokens, dim] and, for int8, scales [batch, tokens].
struct QueryBatch {
    const std::byte* codes;
    const float* scales;
    const int32_t* lengths;  // [batch], 0..tokens: how many tokens each query has
    int64_t batch;
    int64_t tokens;
};

// The first r_q query tokens against the first r_c document tokens.
struct Budget {
    int64_t r_q;
    int64_t r_c;
};

// Without `rows`, scores [batch, width] of every document asked about, -inf where it is left out. With `rows`, the `width` best
// of each query: scores falling, equal ones by sequence, padded with -inf and row -1.
struct Answer {
    float* scores;
    int64_t* rows;
    int64_t width;
};

struct Run {
    Isa isa;
    int num_threads;
};

}  // namespace metaindex
