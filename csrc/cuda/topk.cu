// The k largest keys of each query, falling. Up to kSliceMostK by rounds over slices, each of which one block holds in its
// registers; more by all blocks together, digit by digit, and then sorted in runs that are merged.
#include <cuda_runtime.h>

#include "topk_block.cuh"

using namespace metaindex::device;

// Grid: the slices of each query, one query after another.
extern "C" __global__ void __launch_bounds__(kTopKThreads) metaindex_topk_slices(const __grid_constant__ TopKSlices p) {
    constexpr int kOwn = kSliceKeys / kTopKThreads;
    extern __shared__ uint64_t kept[];  // at least k
    __shared__ int32_t bins[kBins];
    __shared__ Selection shared_selection;
    __shared__ int taken;
    const int64_t query = blockIdx.x / static_cast<unsigned>(p.slices), slice = blockIdx.x % static_cast<unsigned>(p.slices);
    const int64_t begin = slice * kSliceKeys;
    const int64_t count = p.counts == nullptr ? p.columns : min(p.columns, int64_t{p.counts[query]});
    const int64_t* keys = p.keys + query * p.columns;
    int64_t* best = p.best + int64_t{blockIdx.x} * p.k;
    const int thread = static_cast<int>(threadIdx.x);
    if (begin >= count) {  // the same for the whole block
        for (int i = thread; i < p.k; i += kTopKThreads) best[i] = kMissing;
        return;
    }
    uint64_t own[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        const int64_t at = begin + i * kTopKThreads + thread;
        own[i] = at < count ? ordinal_of(keys[at]) : 0;
    }
    // There are kSliceKeys ordinals, those of missing keys among them, so the k-th largest exists.
    Selection selection{0, p.k, false};
    if (thread == 0) taken = 0;
#pragma unroll 1
    for (int number = 0; number < kDigits && !selection.settled; ++number) {
        if (thread < kBins) bins[thread] = 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kOwn; ++i) count_digit(bins, selection.concerns(own[i], number), digit_of(own[i], number));
        __syncthreads();
        if (thread < 32) {
            const Selection narrowed = narrow(selection, number, bins);
            if (thread == 0) shared_selection = narrowed;
        }
        __syncthreads();
        selection = shared_selection;
    }
    const bool last = p.slices == 1;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        if (selection.takes(own[i])) {
            const int at = atomicAdd(&taken, 1);
            if (last) {
                kept[at] = own[i];
            } else {
                best[at] = key_of(own[i]);
            }
        }
    }
    const auto first_repeat = static_cast<int>(p.k - selection.repeats());
    if (!last) {
        for (int i = first_repeat + thread; i < p.k; i += kTopKThreads) best[i] = key_of(selection.least);
        return;
    }
    int places = 2;
    while (places < p.k) places *= 2;
    for (int i = first_repeat + thread; i < places; i += kTopKThreads) kept[i] = i < p.k ? selection.least : 0;
    __syncthreads();
    sort_falling(kept, places);
    for (int i = thread; i < p.k; i += kTopKThreads) best[i] = key_of(kept[i]);
}

namespace {

__device__ __forceinline__ int64_t count_of(const TopK& p, int64_t query) {
    return p.counts == nullptr ? p.columns : min(p.columns, int64_t{p.counts[query]});
}

// What is known after `digits` digits, as one warp finds it from the digit before; the first block writes it down.
__device__ __forceinline__ Selection resume(const TopK& p, int64_t query, int digits) {
    SelectionScratch::State& state = *SelectionScratch::state(p.scratch, query);
    Selection found;
    if (digits == 0) {
        found = {0, p.k, count_of(p, query) <= p.k};
    } else {
        found = state.selections[digits - 1];
        if (!found.settled) found = narrow(found, digits - 1, state.bins[digits - 1]);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) state.selections[digits] = found;
    return found;
}

__device__ __forceinline__ void count_digits(const TopK& p, int number) {
    __shared__ int32_t bins[kBins];
    __shared__ Selection shared_selection;
    const int64_t query = blockIdx.y;
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < 32) {
        const Selection found = resume(p, query, number);
        if (thread == 0) shared_selection = found;
    }
    if (thread < kBins) bins[thread] = 0;
    __syncthreads();
    const Selection selection = shared_selection;
    if (selection.settled) return;
    const int64_t count = count_of(p, query);
    const int64_t* keys = p.keys + query * p.columns;
    // Whole warps go on together, though the last keys are not there for all of their threads.
    for (int64_t first = int64_t{blockIdx.x} * kTopKThreads; first < count; first += int64_t{gridDim.x} * kTopKThreads) {
        const int64_t at = first + thread;
        const uint64_t ordinal = at < count ? ordinal_of(keys[at]) : 0;
        count_digit(bins, at < count && selection.concerns(ordinal, number), digit_of(ordinal, number));
    }
    __syncthreads();
    if (thread < kBins && bins[thread] != 0) {
        atomicAdd(SelectionScratch::state(p.scratch, query)->bins[number] + thread, bins[thread]);
    }
}

}  // namespace

// Grid: batch.
extern "C" __global__ void __launch_bounds__(kTopKThreads) metaindex_topk_start(const __grid_constant__ TopK p) {
    auto* words = reinterpret_cast<uint32_t*>(SelectionScratch::state(p.scratch, blockIdx.x));
    for (size_t i = threadIdx.x; i < sizeof(SelectionScratch::State) / 4; i += kTopKThreads) words[i] = 0;
}

// Grid: blocks x batch. `number` of the digit, the highest first.
extern "C" __global__ void __launch_bounds__(kTopKThreads)
    metaindex_topk_count(const __grid_constant__ TopK p, const __grid_constant__ int number) {
    count_digits(p, number);
}

// Grid: blocks x batch. The k largest ordinals into the first buffer, in no order.
extern "C" __global__ void __launch_bounds__(kTopKThreads) metaindex_topk_collect(const __grid_constant__ TopK p) {
    __shared__ Selection shared_selection;
    const int64_t query = blockIdx.y;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    if (thread < 32) {
        const Selection found = resume(p, query, kDigits);
        if (thread == 0) shared_selection = found;
    }
    __syncthreads();
    const Selection selection = shared_selection;
    const int64_t count = count_of(p, query);
    const int64_t* keys = p.keys + query * p.columns;
    uint64_t* target = SelectionScratch::buffer(p.scratch, p.batch, p.k, query, 0);
    unsigned long long* taken = &SelectionScratch::state(p.scratch, query)->taken;
    for (int64_t first = int64_t{blockIdx.x} * kTopKThreads; first < count; first += int64_t{gridDim.x} * kTopKThreads) {
        const int64_t at = first + thread;
        const uint64_t ordinal = at < count ? ordinal_of(keys[at]) : 0;
        const bool takes = at < count && selection.takes(ordinal);
        const unsigned all = __ballot_sync(0xFFFFFFFF, takes);
        if (all == 0) continue;
        unsigned long long place = 0;
        if (lane == 0) place = atomicAdd(taken, static_cast<unsigned long long>(__popc(all)));
        place = __shfl_sync(0xFFFFFFFF, place, 0) + static_cast<unsigned>(__popc(all & ((1u << lane) - 1)));
        if (takes) target[place] = ordinal;
    }
    // Where there are not k, missing ones; where more are equal to the least, as many as are wanted.
    const int64_t first_repeat = count <= p.k ? count : p.k - selection.repeats();
    for (int64_t i = first_repeat + int64_t{blockIdx.x} * kTopKThreads + thread; i < p.k;
         i += int64_t{gridDim.x} * kTopKThreads) {
        target[i] = count <= p.k ? 0 : selection.least;
    }
}

// Grid: runs x batch. Sorts runs of kSortedRun in the first buffer.
extern "C" __global__ void __launch_bounds__(kTopKThreads) metaindex_topk_sort(const __grid_constant__ TopK p) {
    __shared__ uint64_t sorted[kSortedRun];
    uint64_t* buffer = SelectionScratch::buffer(p.scratch, p.batch, p.k, blockIdx.y, 0);
    const int64_t begin = int64_t{blockIdx.x} * kSortedRun, count = min(int64_t{kSortedRun}, p.k - begin);
    for (int i = static_cast<int>(threadIdx.x); i < kSortedRun; i += kTopKThreads)
        sorted[i] = i < count ? buffer[begin + i] : 0;
    __syncthreads();
    sort_falling(sorted, kSortedRun);
    const bool last = gridDim.x == 1;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kTopKThreads) {
        if (last) {
            p.best[blockIdx.y * p.k + i] = key_of(sorted[i]);
        } else {
            buffer[begin + i] = sorted[i];
        }
    }
}

// Grid: tiles x batch. Merges every two runs of `run` ordinals of one buffer into the other, or, where that leaves one, into
// the answer. A block merges kMergeThreads * kMergeItems places.
extern "C" __global__ void __launch_bounds__(kMergeThreads)
    metaindex_topk_merge(const __grid_constant__ TopK p, const __grid_constant__ int64_t run,
                         const __grid_constant__ int from) {
    constexpr int kTile = kMergeThreads * kMergeItems;
    __shared__ uint64_t merged[kTile];
    __shared__ int64_t splits[2];
    const int thread = static_cast<int>(threadIdx.x);
    const uint64_t* source = SelectionScratch::buffer(p.scratch, p.batch, p.k, blockIdx.y, from);
    // A tile lies within one pair of runs, which have a multiple of its places unless they are the last.
    const int64_t tile = int64_t{blockIdx.x} * kTile, pair = tile / (2 * run) * 2 * run;
    const int64_t first_count = min(run, p.k - pair), second_count = max(int64_t{0}, min(run, p.k - pair - run));
    const uint64_t *first = source + pair, *second = first + run;
    const int64_t begin = tile - pair, end = min(begin + kTile, first_count + second_count);
    if (thread < 2) splits[thread] = merge_split(first, first_count, second, second_count, thread == 0 ? begin : end);
    __syncthreads();
    const auto from_first = static_cast<int>(splits[1] - splits[0]), all = static_cast<int>(end - begin);
    const int64_t second_begin = begin - splits[0];
    for (int i = thread; i < all; i += kMergeThreads) {
        merged[i] = i < from_first ? first[splits[0] + i] : second[second_begin + i - from_first];
    }
    __syncthreads();
    const uint64_t *near = merged, *far = merged + from_first;
    const int own = min(thread * kMergeItems, all), from_second = all - from_first;
    auto at = static_cast<int>(merge_split(near, from_first, far, from_second, own));
    int other = own - at;
    const bool last = 2 * run >= p.k;
    uint64_t* target = SelectionScratch::buffer(p.scratch, p.batch, p.k, blockIdx.y, 1 - from);
    for (int i = own; i < min(own + kMergeItems, all); ++i) {
        const bool takes_first = other >= from_second || (at < from_first && near[at] >= far[other]);
        const uint64_t ordinal = takes_first ? near[at++] : far[other++];
        if (last) {
            p.best[blockIdx.y * p.k + tile + i] = key_of(ordinal);
        } else {
            target[tile + i] = ordinal;
        }
    }
}
