// Query tokens as columns: what each counts for, and sums over them.
#pragma once

#include "parameters.hpp"

namespace metaindex::device {

// What a query token's maximum is multiplied with in the score: 0 for tokens that the query does not have.
__device__ __forceinline__ float weight_of(const MaxSim& p, int64_t query, int token) {
    if (query >= p.queries.batch || token >= p.queries.tokens || token >= __ldg(p.queries.lengths + query)) return 0;
    return p.queries.scales == nullptr ? 1.0f : __ldg(p.queries.scales + query * p.queries.tokens + token);
}

// What stands in columns that count for nothing is never looked at.
__device__ __forceinline__ float weighted(float maximum, float weight) { return weight == 0 ? 0 : maximum * weight; }

// Over the four threads that hold a row's columns; the same in all of them.
__device__ __forceinline__ float sum_of_quarters(float sum) {
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1);
    return sum + __shfl_xor_sync(0xFFFFFFFF, sum, 2);
}

}  // namespace metaindex::device
