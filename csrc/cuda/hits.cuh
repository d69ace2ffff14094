// Keys of hits: see metaindex/device/keys.py, which says the same in torch.
#pragma once

#include <cstdint>

#include "metaindex/device.hpp"

namespace metaindex::device {

inline constexpr int64_t kMissing = INT64_MIN;
inline constexpr int64_t kLastPlace = 0x7FFFFFFF;

__host__ __device__ inline int64_t key_of(int32_t score_bits, int64_t place) {
    const int32_t rising = score_bits < 0 ? score_bits ^ 0x7FFFFFFF : score_bits;
    return static_cast<int64_t>(static_cast<uint64_t>(static_cast<int64_t>(rising)) << 32) | (kLastPlace - place);
}

#if defined(__CUDACC__)

// NaN counts as -inf; adding zero turns -0.0 into 0.0, so that both rank alike.
__device__ inline float ranked(float score) { return score == score ? score + 0.0f : -INFINITY; }

__device__ inline void append(const Hits& hits, int query, float score, int64_t place) {
    const int64_t key = key_of(__float_as_int(ranked(score)), place);
    if (key <= hits.thresholds[query]) return;
    const int at = atomicAdd(hits.counts + query, 1);
    hits.keys[query * hits.capacity + at] = key;
}

#endif

}  // namespace metaindex::device
