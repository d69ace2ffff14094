// What blocks of topk's kernels do together.
#pragma once

#include "parameters.hpp"
#include "selection.hpp"

namespace metaindex::device {

// Counts digits in shared memory; digits of keys that are much alike are counted once for all threads of a warp that have them.
// All threads of a warp call it together.
__device__ __forceinline__ void count_digit(int32_t* bins, bool concerned, int digit) {
    const unsigned alike = __match_any_sync(0xFFFFFFFF, concerned ? digit : -1);
    const int lane = static_cast<int>(threadIdx.x % 32u);
    if (concerned && lane == __ffs(static_cast<int>(alike)) - 1) atomicAdd(bins + digit, __popc(alike));
}

// One warp: the digit that the last of the wanted ordinals has, given how many have each digit.
__device__ __forceinline__ Selection narrow(const Selection& before, int number, const int32_t* bins) {
    constexpr int kOwn = kBins / 32;
    const int lane = static_cast<int>(threadIdx.x % 32u);
    int32_t own[kOwn];
    int64_t sum = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) sum += own[i] = bins[lane * kOwn + i];
    int64_t from_here = sum;  // how many have a digit of this thread's or a larger one
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const long long more = __shfl_down_sync(0xFFFFFFFF, static_cast<long long>(from_here), step);
        if (lane + step < 32) from_here += more;
    }
    int64_t above = from_here - sum;
    const bool has = above < before.wanted && from_here >= before.wanted;
    Selection found = before;
#pragma unroll
    for (int i = kOwn - 1; i >= 0; --i) {
        if (has && above < before.wanted && above + own[i] >= before.wanted) {
            found = before.narrowed(number, lane * kOwn + i, above, own[i]);
        }
        above += own[i];
    }
    const int source = __ffs(static_cast<int>(__ballot_sync(0xFFFFFFFF, has))) - 1;
    found.least = __shfl_sync(0xFFFFFFFF, static_cast<unsigned long long>(found.least), source);
    found.wanted = __shfl_sync(0xFFFFFFFF, static_cast<long long>(found.wanted), source);
    found.settled = __shfl_sync(0xFFFFFFFF, static_cast<int>(found.settled), source) != 0;
    return found;
}

// Sorts `places` ordinals, a power of two, by all threads of the block, who have met since they were written.
__device__ __forceinline__ void sort_falling(uint64_t* ordinals, int places) {
    for (int run = 2; run <= places; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            for (int pair = static_cast<int>(threadIdx.x); pair < places / 2; pair += static_cast<int>(blockDim.x)) {
                const Exchange at = exchange(pair, run, step);
                const uint64_t low = ordinals[at.low], high = ordinals[at.high];
                if ((low < high) == at.falling) {
                    ordinals[at.low] = high;
                    ordinals[at.high] = low;
                }
            }
            __syncthreads();
        }
    }
}

}  // namespace metaindex::device
