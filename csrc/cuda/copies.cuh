// Pieces of rows, of any alignment, into shared memory.
#pragma once

#include "fragments.hpp"

namespace metaindex::device {

// Bytes of the piece at `offset` that belong to a row of `row_bytes`.
__device__ __forceinline__ int piece_bytes(int row_bytes, int offset) { return max(0, min(kPieceBytes, row_bytes - offset)); }

// The first `bytes` bytes at `from`, then zeros, by loads of up to `width` bytes.
__device__ __forceinline__ uint4 load_piece(const unsigned char* from, int bytes, int width) {
    uint32_t words[4] = {};
    if (width == 16) {
        if (bytes > 0) return __ldg(reinterpret_cast<const uint4*>(from));
    } else if (width >= 4) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (4 * i < bytes) words[i] = __ldg(reinterpret_cast<const uint32_t*>(from) + i);
        }
    } else if (width == 2) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (2 * i < bytes) {
                words[i / 2] |= static_cast<uint32_t>(__ldg(reinterpret_cast<const uint16_t*>(from) + i)) << (16 * (i % 2));
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            if (i < bytes) words[i / 4] |= static_cast<uint32_t>(__ldg(from + i)) << (8 * (i % 4));
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The same into shared memory where the width is below 16: by copies that go on behind the thread's back, but for widths
// below 4. `from` is some address even where `bytes` is 0.
__device__ __forceinline__ void start_narrow_piece(unsigned char* to, const unsigned char* from, int bytes, int width) {
    if (width == 8) {
#pragma unroll
        for (int i = 0; i < 16; i += 8) copy_8(to + i, from + i, max(0, min(8, bytes - i)));
    } else if (width == 4) {
#pragma unroll
        for (int i = 0; i < 16; i += 4) copy_4(to + i, from + i, max(0, min(4, bytes - i)));
    } else {
        *reinterpret_cast<uint4*>(to) = load_piece(from, bytes, width);
    }
}

}  // namespace metaindex::device
