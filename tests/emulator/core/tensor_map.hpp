// The emulated CUtensorMap, as tests/emulator/tensor_map.py packs it, and the boxes that it cuts out of a tensor.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.hpp"

namespace emulator {

inline constexpr int kMostAxes = 5;
inline constexpr uint64_t kMapMark = 0x70614D726F736E54;

struct TensorMap {
    uint64_t mark, base;
    uint64_t strides[kMostAxes - 1];  // bytes, of the second axis on
    uint32_t dims[kMostAxes];         // innermost first
    uint16_t box[kMostAxes];
    uint8_t steps[kMostAxes];  // between the elements of a box
    uint8_t rank, element_bytes, swizzle_bytes;

    // How many elements of a box lie along an axis.
    int32_t extent(int axis) const { return axis == 0 ? box[0] : (box[axis] + steps[axis] - 1) / steps[axis]; }
    uint32_t box_bytes() const;
};

// A run of a box: bytes of global memory, or zeros where it lies outside the tensor, and where in shared memory it belongs.
struct BoxRun {
    uint64_t global;  // 0 outside
    uint64_t shared;
    uint32_t bytes;
};

// The map at a generic address, checked as far as the copy engine would.
TensorMap map_at(const Buffers& buffers, uint64_t address);
std::vector<BoxRun> runs_of(const TensorMap& map, const int32_t* corner, uint64_t shared);

// What swizzling by rows of `bytes` makes of an address: 16-byte parts are exchanged by the bits above the row.
inline uint64_t swizzled(uint64_t address, uint32_t bytes) {
    const uint64_t parts = bytes >= 32 ? bytes / 16 - 1 : 0;
    return address ^ (address >> 7 & parts) << 4;
}

}  // namespace emulator
