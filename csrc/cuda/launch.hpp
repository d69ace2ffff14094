// What is launched: which kernel, in how many blocks, with which parameters. Made by plain functions, tested without a GPU.
#pragma once

#include <cstdint>

#include "metaindex/cuda.hpp"
#include "parameters.hpp"

namespace metaindex::device {

enum class Kernel : uint8_t {
    stream_2,
    stream_4,
    stream_8,
    tile,
    topk_slices,
    topk_start,
    topk_count,
    topk_collect,
    topk_sort,
    topk_merge,
};

struct Launch {
    Kernel kernel;
    Codec codec;               // of kernels that are compiled for each
    uint32_t blocks, queries;  // of the grid
    uint32_t threads;
    int32_t shared_bytes;  // beyond what the kernel declares
};

struct MaxSimLaunch {
    Launch launch;
    MaxSim parameters;
};

// How many registers a thread of maxsim_stream may use at most: the compile check holds the kernels to it, so that a choice of
// tiles knows how many blocks share a multiprocessor.
constexpr int32_t stream_registers(Codec codec, int32_t kernel_tiles) {
    if (codec == Codec::float32) return kernel_tiles == 2 ? 168 : 255;
    return kernel_tiles == 2 ? 128 : kernel_tiles == 4 ? 168 : 224;
}

MaxSimLaunch plan_maxsim(const Table& table, const Queries& queries, int32_t r_c, const Documents& documents,
                         const uint8_t* allow, const Output& output, const Card& card);

// The most queries of one grid, whose second dimension they are.
inline constexpr int64_t kMostQueries = 65535;

// Starts a kernel on the current device.
void run(const Launch& launch, const void* const* parameters, Stream stream);
Card current_card();

}  // namespace metaindex::device
