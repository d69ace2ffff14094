// Where everything of a tile lies, as pure functions: the kernel and its tests ask the same ones.
//
// A tile is the product of query tokens (rows, wgmma's M) with document tokens (columns, wgmma's N). Queries are the rows
// because of how wgmma spreads a tile over its threads: a thread holds 64 columns of 2 rows, so the maximum over a document's
// tokens is taken in registers, and no warp ever needs another one's part of it. With documents as rows each maximum would
// cross all four warps, through shared memory, once per column.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "metaindex/levels.hpp"

#ifndef METAINDEX_HOST_DEVICE
#ifdef __CUDACC__
#define METAINDEX_HOST_DEVICE __host__ __device__
#else
#define METAINDEX_HOST_DEVICE
#endif
#endif

namespace metaindex::device::sm90 {

// Query tokens of a warpgroup: the only M that wgmma has.
inline constexpr int kRows = 64;
// Document tokens of a tile: the widest N. Each wgmma reads its 64 rows once per N columns; at 128 columns that is 96 bytes of
// shared memory per cycle of the 128 there are, with the loads still to come; at 256 it is 80.
inline constexpr int kColumns = 256;
// What a stage holds of each vector: the widest swizzle. 64 numbers of 16 bits, 128 of 8.
inline constexpr int kSliceBytes = 128;
// What one wgmma takes of each vector: 16 numbers of 16 bits, 32 of 8.
inline constexpr int kStepBytes = 32;
inline constexpr int kSteps = kSliceBytes / kStepBytes;
// The swizzle exchanges 16-byte parts within 8 rows of 128 bytes and starts over.
inline constexpr int kSwizzleBytes = 8 * kSliceBytes;
// Numbers of a tile that a thread holds.
inline constexpr int kNumbers = kRows * kColumns / 128;

inline constexpr int kWarpgroup = 128;
inline constexpr int kConsumers = 2;  // warpgroups that multiply
inline constexpr int kThreads = (1 + kConsumers) * kWarpgroup;

METAINDEX_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Cell {
    int row, column;
};

// The cell of number `i` of thread `thread` (0..127) of a warpgroup, as wgmma lays out its 32-bit results.
METAINDEX_HOST_DEVICE constexpr Cell cell(int thread, int i) {
    return {thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8, i / 4 * 8 + thread % 4 * 2 + i % 2};
}

// Documents that share a tile, a power of two of them, and in how many blocks of kColumns their first r_c tokens are taken.
//
// Columns go token by token and, within a token, document by document. That makes the document of a column its lowest bits
// whatever the levels are, a run of tokens of one level one box, and a cut between two blocks fall between tokens.
struct DocumentTile {
    int32_t log2;
    int32_t blocks;

    METAINDEX_HOST_DEVICE constexpr int documents() const { return 1 << log2; }
    // Of each document in one block.
    METAINDEX_HOST_DEVICE constexpr int tokens() const { return kColumns >> log2; }
    METAINDEX_HOST_DEVICE constexpr int document(int column) const { return column & (documents() - 1); }
    METAINDEX_HOST_DEVICE constexpr int token(int block, int column) const { return block * tokens() + (column >> log2); }
};

// The tile that leaves the fewest columns idle; of equal ones the one with the fewest documents, which balances best. More than
// 8 documents go into one block only: then a thread keeps more maxima than the four that it can carry from block to block.
METAINDEX_HOST_DEVICE constexpr DocumentTile document_tile(int r_c) {
    DocumentTile best{0, static_cast<int32_t>(ceil_div(r_c, kColumns))};
    for (int log2 = 1; log2 <= 8; ++log2) {
        const DocumentTile tile{log2, static_cast<int32_t>(ceil_div(int64_t{r_c} << log2, kColumns))};
        if (log2 > 3 && tile.blocks > 1) break;
        if ((int64_t{best.blocks} << tile.log2) > (int64_t{tile.blocks} << best.log2)) best = tile;
    }
    return best;
}

// A run of tokens of one level within one block: one box of the copy engine, [tokens, documents, slice].
struct Piece {
    int32_t token;   // its first token in the document
    int32_t offset;  // and in its level
    int32_t tokens;
    int32_t row;  // of the stage, where the box starts: 128 bytes each
};

struct Pieces {
    std::vector<Piece> pieces;    // by rising token
    std::vector<int32_t> levels;  // of each piece
    std::vector<int32_t> starts;  // [blocks + 1], a block's first piece
};

// Where a token comes from: row * width + offset of its level.
struct alignas(16) Source {
    int32_t level, width, offset, padding;
};

inline Pieces pieces_of(const int32_t* starts, const int32_t* widths, int levels, int r_c, DocumentTile tile) {
    Pieces found;
    for (int block = 0; block < tile.blocks; ++block) {
        found.starts.push_back(static_cast<int32_t>(found.pieces.size()));
        const int first = block * tile.tokens(), end = std::min(r_c, first + tile.tokens());
        for (int level = 0; level < levels; ++level) {
            const int from = std::max<int>(first, starts[level]), to = std::min<int>(end, starts[level] + widths[level]);
            if (from >= to) continue;
            found.pieces.push_back({from, from - starts[level], to - from, (from - first) << tile.log2});
            found.levels.push_back(level);
        }
    }
    found.starts.push_back(static_cast<int32_t>(found.pieces.size()));
    return found;
}

// Where byte `byte` of row `row` of a stage lies, counted from a stage that starts at a multiple of kSwizzleBytes. The copy
// engine and wgmma both exchange 16-byte parts by the bits of the *address*, so a box may start at any row, not just at every
// eighth: its rows land where a box of the whole stage would have put them.
METAINDEX_HOST_DEVICE constexpr int swizzled(int row, int byte) {
    return row * kSliceBytes + ((byte / 16 ^ row % 8) * 16 | byte % 16);
}

// What wgmma is told of an operand in shared memory: rows of kSliceBytes, swizzled, 8 rows every kSwizzleBytes. `address` is
// that of its first row, a multiple of kSwizzleBytes, plus the bytes of the steps before. Bits 0..13: address, 16..29: the
// distance between parts along a vector, which the swizzle implies and the hardware ignores, 32..45: between groups of 8 rows,
// all in units of 16 bytes; 62..63: 1 for the 128-byte swizzle.
METAINDEX_HOST_DEVICE constexpr uint64_t descriptor(uint32_t address) {
    return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{1} << 16 | uint64_t{kSwizzleBytes >> 4} << 32 | uint64_t{1} << 62;
}

}  // namespace metaindex::device::sm90
