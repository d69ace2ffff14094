// Which numbers of a product the threads of a warp hold, and where the operands lie. Everything is in bytes, so that 16-bit and
// 8-bit numbers share it: an mma takes 32 bytes of each vector, 16 halves or 32 int8, and its fragments are the same words.
//
// A warp multiplies strips of 8 document tokens (rows; two strips are the 16 rows of an mma) with query tokens in column tiles
// of 8. The thread of lane l holds, of each strip, row l / 4 in columns 2 * (l % 4) and the one after it.
#pragma once

#include <cstdint>

#include "host_device.hpp"

namespace metaindex::device {

inline constexpr int kStripBits = 3;
inline constexpr int kStripRows = 1 << kStripBits;
inline constexpr int kTileColumns = 8;
inline constexpr int kPieceBytes = 16;  // the widest copy, and what one thread reads at once
// What a stage holds of each vector: two steps of an mma. Vectors of many dimensions come chunk by chunk.
inline constexpr int kChunkBytes = 64;
inline constexpr int kChunkPieces = kChunkBytes / kPieceBytes;
inline constexpr int kChunkSteps = 2;

METAINDEX_HOST_DEVICE constexpr int lane_row(int lane) { return lane / 4; }
METAINDEX_HOST_DEVICE constexpr int lane_quarter(int lane) { return lane % 4; }
METAINDEX_HOST_DEVICE constexpr int lane_column(int lane) { return 2 * (lane % 4); }

// Where a piece of a row lies in a stage that all warps of a block share. Eight rows are the 512 bytes of four passes over the
// 32 banks; pieces are exchanged by the row, so that the same piece of 8 neighbouring rows (what ldmatrix reads at once) and
// the same piece of every second row of 8 (what float32 reads of the queries) lie in different banks.
METAINDEX_HOST_DEVICE constexpr int swizzled(int row, int piece) {
    return row * kChunkBytes + ((piece ^ (row >> 1 & 3)) * kPieceBytes);
}

// ldmatrix reads four 8 x 16-byte matrices, of each the row that one lane names. For 16 rows of documents they become the four
// words of an mma's first operand: both strips of the lower 16 bytes, then of the upper.
METAINDEX_HOST_DEVICE constexpr int document_row(int lane) { return lane % 16; }
METAINDEX_HOST_DEVICE constexpr int document_piece(int lane, int step) { return 2 * step + lane / 16; }
// For two column tiles of queries: lower and upper 16 bytes of the first tile, then of the second.
METAINDEX_HOST_DEVICE constexpr int query_column(int lane) { return lane / 16 * kTileColumns + lane % 8; }
METAINDEX_HOST_DEVICE constexpr int query_piece(int lane, int step) { return 2 * step + lane / 8 % 2; }

}  // namespace metaindex::device
