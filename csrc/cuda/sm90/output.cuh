// Where scores go: into a matrix, or as keys to the hits of their query.
#pragma once

#include <cmath>

#include "scan.hpp"

namespace metaindex::device::sm90 {

class Sink {
 public:
    __device__ Sink(const Scan& scan, const Item& item) : scan_(scan), row_(item.row) {}

    // The score of one document of the tile, if there is one; every thread of a warp calls it. `together` threads that follow
    // one another, a power of two, have the same query: they take their places among its hits at once.
    __device__ __forceinline__ void give(bool here, int query, int document, float score, int together) const {
        const int64_t row = row_ + document;
        score = isnan(score) ? -INFINITY : score + 0.0f;  // -0.0 becomes 0.0
        if (scan_.output.scores != nullptr) {
            if (!here) return;
            if (scan_.allow != nullptr && !__ldg(scan_.allow + row)) score = -INFINITY;
            scan_.output.scores[query * scan_.output.columns + row] = score;
            return;
        }
        const Hits& hits = scan_.output.hits;
        const int32_t bits = __float_as_int(score), rising = bits < 0 ? bits ^ 0x7FFFFFFF : bits;
        int64_t key = 0;
        bool wanted = false;
        if (here) {
            const int64_t threshold = __ldg(hits.thresholds + query);
            // Most scores are below it whatever the document's place.
            if (rising >= static_cast<int32_t>(threshold >> 32) && (scan_.allow == nullptr || __ldg(scan_.allow + row))) {
                const int32_t place =
                    scan_.table.places == nullptr ? static_cast<int32_t>(row) : __ldg(scan_.table.places + row);
                key = int64_t{rising} * (int64_t{1} << 32) + (0x7FFFFFFF - place);
                wanted = key > threshold;
            }
        }
        unsigned found = __ballot_sync(0xFFFFFFFF, wanted);
        if (found == 0) return;
        const int lane = threadIdx.x % 32, first = lane & -together;
        found = found >> first & (together == 32 ? 0xFFFFFFFF : (1u << together) - 1);
        const int rank = __popc(found & ((1u << (lane - first)) - 1));
        int place = 0;
        if (wanted && rank == 0) place = atomicAdd(hits.counts + query, __popc(found));
        place = __shfl_sync(0xFFFFFFFF, place, first + max(0, __ffs(static_cast<int>(found)) - 1));
        if (wanted && place + rank < hits.capacity) hits.keys[query * hits.capacity + place + rank] = key;
    }

 private:
    const Scan& scan_;
    int64_t row_;
};

}  // namespace metaindex::device::sm90
