// The k largest keys of each query, and their order. Keys of different documents differ, so "the k largest" is one set.
#include <algorithm>

#include "check.hpp"
#include "hits.cuh"
#include "metaindex/cuda.hpp"

namespace metaindex::device {
namespace {

constexpr int kSelectThreads = 512;
constexpr int kSortThreads = 1024;
constexpr int64_t kLeastSlice = 8192;  // 64 KB of keys, which eight looks at them find in the caches

// Slices are at least four times what each leaves, so every round leaves a quarter at most.
int64_t slice_of(int64_t k) { return std::max<int64_t>(kLeastSlice, 4 * k); }
int64_t slices(int64_t n, int64_t k) { return (n + slice_of(k) - 1) / slice_of(k); }

__device__ uint64_t rising(int64_t key) { return static_cast<uint64_t>(key) ^ (1ull << 63); }

// Leaves the k largest of the slice blockIdx.y of each query's keys: radix select, one byte of the keys at a time from the top,
// until the keys that share the bytes seen so far are just those that are still wanted.
__global__ void __launch_bounds__(kSelectThreads)
    select_best(const int64_t* keys, const int32_t* counts, int64_t n, int64_t k, int64_t slice, int64_t* best) {
    __shared__ int32_t bins[257];  // after the sums: how many keys have that byte or a larger one; the last is zero
    __shared__ int32_t present, written, digit;
    const int64_t query = blockIdx.x, begin = blockIdx.y * slice;
    const int64_t given = counts ? min(n, static_cast<int64_t>(counts[query])) : n;
    const int64_t count = max(static_cast<int64_t>(0), min(slice, given - begin));
    const int64_t* own = keys + query * n + begin;
    best += (query * gridDim.y + blockIdx.y) * k;
    if (threadIdx.x == 0) present = written = 0;
    __syncthreads();
    int32_t mine = 0;
    for (int64_t i = threadIdx.x; i < count; i += kSelectThreads) mine += own[i] != kMissing;
    atomicAdd(&present, mine);
    __syncthreads();
    uint64_t prefix = 0, seen = 0;
    int64_t wanted = k;
    const bool all = present <= k;
    for (int shift = 56; !all && shift >= 0; shift -= 8) {
        for (int bin = threadIdx.x; bin < 257; bin += kSelectThreads) bins[bin] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < count; i += kSelectThreads) {
            const uint64_t key = rising(own[i]);
            if (own[i] != kMissing && (key & seen) == prefix) atomicAdd(&bins[key >> shift & 255], 1);
        }
        __syncthreads();
        for (int step = 1; step < 256; step *= 2) {
            const bool adds = threadIdx.x < 256 && threadIdx.x + step < 256;
            const int32_t more = adds ? bins[threadIdx.x + step] : 0;
            __syncthreads();
            if (adds) bins[threadIdx.x] += more;
            __syncthreads();
        }
        if (threadIdx.x < 256 && bins[threadIdx.x] >= wanted && bins[threadIdx.x + 1] < wanted) digit = threadIdx.x;
        __syncthreads();
        const int64_t above = bins[digit + 1], sharing = bins[digit] - above;
        wanted -= above;
        prefix |= static_cast<uint64_t>(digit) << shift;
        seen |= 255ull << shift;
        __syncthreads();  // before the bins and the digit are written again
        if (sharing == wanted) break;
    }
    for (int64_t i = threadIdx.x; i < count; i += kSelectThreads) {
        const int64_t key = own[i];
        if (key == kMissing || (!all && rising(key) < prefix)) continue;
        const int32_t at = atomicAdd(&written, 1);
        if (at < k) best[at] = key;
    }
    __syncthreads();
    for (int64_t i = written + threadIdx.x; i < k; i += kSelectThreads) best[i] = kMissing;
}

// Sorts k keys of each query, falling: bitonic, in shared memory, `size` a power of two of at least k.
__global__ void __launch_bounds__(kSortThreads) sort_falling(int64_t* keys, int32_t k, int32_t size) {
    extern __shared__ int64_t sorted[];
    int64_t* own = keys + static_cast<int64_t>(blockIdx.x) * k;
    for (int i = threadIdx.x; i < size; i += kSortThreads) sorted[i] = i < k ? own[i] : kMissing;
    for (int run = 2; run <= size; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += kSortThreads) {
                const int low = pair / step * 2 * step + pair % step, high = low + step;
                const bool falling = (low & run) == 0;
                const int64_t a = sorted[low], b = sorted[high];
                if ((a < b) == falling) {
                    sorted[low] = b;
                    sorted[high] = a;
                }
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < k; i += kSortThreads) own[i] = sorted[i];
}

}  // namespace

int64_t topk_scratch_bytes(int64_t batch, int64_t n, int64_t k) {
    int64_t keys = 0;
    for (int64_t left = n; slices(left, k) > 1;) keys += left = slices(left, k) * k;
    return batch * keys * static_cast<int64_t>(sizeof(int64_t));
}

void topk(const int64_t* keys, const int32_t* counts, int64_t batch, int64_t n, int64_t k, bool sorted, void* scratch,
          int64_t* best, Stream stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    if (batch < 1 || k < 1) return;
    auto* room = static_cast<int64_t*>(scratch);
    while (true) {
        const int64_t blocks = std::max<int64_t>(1, slices(n, k));
        int64_t* target = blocks == 1 ? best : room;
        const dim3 grid(static_cast<unsigned>(batch), static_cast<unsigned>(blocks));
        select_best<<<grid, kSelectThreads, 0, on>>>(keys, counts, n, k, slice_of(k), target);
        check(cudaGetLastError());
        if (blocks == 1) break;
        keys = target;
        counts = nullptr;
        n = blocks * k;
        room += batch * n;
    }
    if (!sorted) return;
    if (k > kSortedKeys) throw std::invalid_argument("topk: more keys than one block sorts");
    int32_t size = 2;
    while (size < k) size *= 2;
    sort_falling<<<static_cast<unsigned>(batch), kSortThreads, static_cast<size_t>(size) * sizeof(int64_t), on>>>(
        best, static_cast<int32_t>(k), size);
    check(cudaGetLastError());
}

}  // namespace metaindex::device
