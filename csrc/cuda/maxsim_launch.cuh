// Launches the kernel that a tile choice names.
#pragma once

#include <algorithm>

#include "check.hpp"
#include "maxsim.cuh"

namespace metaindex::device {

template <class Arithmetic, int N, bool kWide, bool kGather>
void launch(const Work& work, cudaStream_t stream) {
    const auto kernel = maxsim<Arithmetic, N, kWide, kGather>;
    const int shared = work.tile.shared_bytes;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    int device = 0, multiprocessors = 0, blocks = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, static_cast<size_t>(shared)));
    const int64_t grid = std::min<int64_t>(work.tiles, static_cast<int64_t>(std::max(blocks, 1)) * multiprocessors);
    kernel<<<static_cast<unsigned>(grid), kThreads, static_cast<size_t>(shared), stream>>>(work);
    check(cudaGetLastError());
}

template <class Arithmetic, int N, bool kWide>
void launch(const Work& work, bool gather, cudaStream_t stream) {
    gather ? launch<Arithmetic, N, kWide, true>(work, stream) : launch<Arithmetic, N, kWide, false>(work, stream);
}

template <class Arithmetic>
void Launch<Arithmetic>::run(const Work& work, bool gather, cudaStream_t stream) {
    const bool wide = work.tile.wide_loads;
    switch (work.tile.columns) {
        case 16:
            return wide ? launch<Arithmetic, 16, true>(work, gather, stream)
                        : launch<Arithmetic, 16, false>(work, gather, stream);
        case 32:
            return wide ? launch<Arithmetic, 32, true>(work, gather, stream)
                        : launch<Arithmetic, 32, false>(work, gather, stream);
        default: return launch<Arithmetic, 128, true>(work, gather, stream);
    }
}

}  // namespace metaindex::device
