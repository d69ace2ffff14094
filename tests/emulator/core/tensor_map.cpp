#include "tensor_map.hpp"

#include <algorithm>
#include <cstring>

#include "fault.hpp"

namespace emulator {

uint32_t TensorMap::box_bytes() const {
    uint32_t bytes = element_bytes;
    for (int axis = 0; axis < rank; ++axis) bytes *= static_cast<uint32_t>(extent(axis));
    return bytes;
}

TensorMap map_at(const Buffers& buffers, uint64_t address) {
    require(address % 64 == 0, "a tensor map needs an address that is a multiple of 64, not ", Hex{address});
    TensorMap map;
    std::memcpy(&map, buffers.at(address, 128, Access::read), sizeof(map));
    require(map.mark == kMapMark, "there is no tensor map at ", Hex{address});
    return map;
}

std::vector<BoxRun> runs_of(const TensorMap& map, const int32_t* corner, uint64_t shared) {
    require(shared % 128 == 0, "a box needs shared memory at a multiple of 128 bytes, not ", shared);
    const uint32_t row_bytes = map.box[0] * map.element_bytes;
    // Narrower rows than the swizzle's are left out: what the copy engine makes of them is not documented.
    require(map.swizzle_bytes == 0 || row_bytes == map.swizzle_bytes, "rows of ", row_bytes, " bytes are swizzled by ",
            map.swizzle_bytes);
    std::vector<BoxRun> runs;
    const uint32_t rows = map.box_bytes() / row_bytes;
    for (uint32_t row = 0; row < rows; ++row) {
        uint64_t global = map.base;
        bool inside = true;
        for (uint32_t axis = 1, rest = row; axis < map.rank; ++axis) {
            const auto extent = static_cast<uint32_t>(map.extent(static_cast<int>(axis)));
            const int64_t at = int64_t{corner[axis]} + int64_t{rest % extent} * map.steps[axis];
            inside &= at >= 0 && at < int64_t{map.dims[axis]};
            global += static_cast<uint64_t>(at) * map.strides[axis - 1];
            rest /= extent;
        }
        // Elements from..to of the row lie in the tensor.
        const int64_t from = inside ? std::clamp<int64_t>(-int64_t{corner[0]}, 0, map.box[0]) : map.box[0];
        const int64_t to = std::clamp<int64_t>(int64_t{map.dims[0]} - corner[0], from, map.box[0]);
        const uint64_t edges[] = {0, uint64_t(from) * map.element_bytes, uint64_t(to) * map.element_bytes, row_bytes};
        for (int part = 0; part < 3; ++part) {
            for (uint64_t byte = edges[part]; byte < edges[part + 1];) {
                const uint64_t end = std::min(edges[part + 1], byte / 16 * 16 + 16);
                const uint64_t linear = shared + uint64_t{row} * row_bytes + byte;
                const uint64_t source =
                    part == 1 ? global + static_cast<uint64_t>(int64_t{corner[0]} * map.element_bytes + int64_t(byte)) : 0;
                runs.push_back({source, swizzled(linear, map.swizzle_bytes), static_cast<uint32_t>(end - byte)});
                byte = end;
            }
        }
    }
    return runs;
}

}  // namespace emulator
