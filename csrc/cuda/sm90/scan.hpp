// What the kernel of the Hopper scan is given.
#pragma once

#include <cstdint>

#include "boxes.hpp"
#include "metaindex/device.hpp"
#include "tiling.hpp"

namespace metaindex::device::sm90 {

struct Scan {
    Table table;
    Queries queries;
    Runs runs;
    const uint8_t* allow;
    Output output;
    Boxes boxes;
    Tiling tiling;
    int32_t r_c;
    int32_t first_tile, wave;  // of queries
    int32_t step;              // thread blocks for each of them
};

}  // namespace metaindex::device::sm90
