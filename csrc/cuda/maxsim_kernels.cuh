// The MaxSim kernels of one codec.
#pragma once

#include "ptx.cuh"

#include "maxsim_stream.cuh"
#include "maxsim_tile.cuh"

#define METAINDEX_STREAM_KERNEL(codec, tiles, scaled, ...)                                                      \
    extern "C" __global__ void __launch_bounds__(32 * metaindex::device::kStreamMostWarps, 1)                   \
        metaindex_maxsim_stream_##codec##_##tiles(const __grid_constant__ metaindex::device::MaxSim p) {        \
        extern __shared__ __align__(128) uint4 memory[];                                                        \
        metaindex::device::StreamBlock<__VA_ARGS__, scaled>(p, reinterpret_cast<unsigned char*>(memory)).run(); \
    }

#define METAINDEX_TILE_KERNEL(codec, scaled, ...)                                                             \
    extern "C" __global__ void __launch_bounds__(metaindex::device::kTileThreads, 2)                          \
        metaindex_maxsim_tile_##codec(const __grid_constant__ metaindex::device::MaxSim p) {                  \
        extern __shared__ __align__(128) uint4 memory[];                                                      \
        metaindex::device::TileBlock<__VA_ARGS__, scaled>(p, reinterpret_cast<unsigned char*>(memory)).run(); \
    }

#define METAINDEX_MATRIX_KERNELS(codec, number, scaled)                                                      \
    METAINDEX_STREAM_KERNEL(codec, 2, scaled, metaindex::device::MatrixStream<metaindex::device::number, 2>) \
    METAINDEX_STREAM_KERNEL(codec, 4, scaled, metaindex::device::MatrixStream<metaindex::device::number, 4>) \
    METAINDEX_STREAM_KERNEL(codec, 8, scaled, metaindex::device::MatrixStream<metaindex::device::number, 8>) \
    METAINDEX_TILE_KERNEL(codec, scaled, metaindex::device::MatrixTile<metaindex::device::number>)
