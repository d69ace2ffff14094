// Where scores go: into a matrix, or as keys to the hits of their query.
#pragma once

#include "documents.cuh"
#include "keys.hpp"

namespace metaindex::device {

// What a document's score is told by: its column, or for hits its row.
__device__ __forceinline__ int64_t target_of(const MaxSim& p, const Document& document) {
    return p.output.scores != nullptr ? document.column : document.row;
}

// The score of `queries` queries from `first` on where a document is left out.
__device__ __forceinline__ void give_nothing(const MaxSim& p, int64_t first, int queries, int64_t column) {
    if (p.output.scores == nullptr) return;
    for (int64_t query = first; query < min(first + queries, int64_t{p.queries.batch}); ++query) {
        p.output.scores[query * p.output.columns + column] = -INFINITY;
    }
}

// One score of one query from each thread that is `here`. All threads of a warp call it together, and those whose keys are
// wanted take their places among the query's hits at once.
__device__ __forceinline__ void give(const MaxSim& p, int64_t query, bool here, int64_t target, float score) {
    if (p.output.scores != nullptr) {
        if (here) p.output.scores[query * p.output.columns + target] = without_nan(score);
        return;
    }
    const Hits& hits = p.output.hits;
    int64_t key = 0;
    bool wanted = false;
    if (here) {
        const int64_t threshold = __ldg(hits.thresholds + query);
        const int32_t rise = rising(score);
        if (rise >= static_cast<int32_t>(threshold >> 32)) {  // few are: of those the place counts
            const int32_t* places = p.table.places;
            key = key_of(rise, places != nullptr ? __ldg(places + target) : static_cast<int32_t>(target));
            wanted = key > threshold;
        }
    }
    const unsigned all = __ballot_sync(0xFFFFFFFF, wanted);
    if (all == 0) return;
    const int lane = static_cast<int>(threadIdx.x) % 32, first = __ffs(static_cast<int>(all)) - 1;
    int at = 0;
    if (lane == first) at = atomicAdd(hits.counts + query, __popc(all));
    at = __shfl_sync(0xFFFFFFFF, at, first) + __popc(all & ((1u << lane) - 1));
    if (wanted && at < hits.capacity) hits.keys[query * hits.capacity + at] = key;
}

}  // namespace metaindex::device
