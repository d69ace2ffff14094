// Where things lie in a tile: plain arithmetic, tested on the host.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define METAINDEX_EITHER __host__ __device__
#else
#define METAINDEX_EITHER
#endif

namespace metaindex::device {

inline constexpr int kThreads = 128;
inline constexpr int kRows = 128;        // document tokens of a tile: 32 for each of four warps
inline constexpr int kChunkBytes = 128;  // of a token at a time: eight pieces of 16 bytes, and 32 bytes for each multiplication
inline constexpr int kPieces = kChunkBytes / 16;

// Byte offset of piece `piece` of row `row` in a tile of rows of 128 bytes. Eight rows that are read at one piece, as ldmatrix
// does, lie in eight different groups of four banks.
METAINDEX_EITHER inline constexpr int swizzled(int row, int piece) { return row * kChunkBytes + ((piece ^ (row & 7)) << 4); }

// Of an accumulator fragment, register i of lane: its row and column in the 16 x 8 product.
METAINDEX_EITHER inline constexpr int fragment_row(int lane, int i) { return lane / 4 + (i / 2) * 8; }
METAINDEX_EITHER inline constexpr int fragment_column(int lane, int i) { return lane % 4 * 2 + i % 2; }

// Rows that are folded into one running maximum before they leave a warp: as many as a document has in its 32.
METAINDEX_EITHER inline constexpr int folded(int tokens) { return tokens < 32 ? tokens : 32; }

}  // namespace metaindex::device
