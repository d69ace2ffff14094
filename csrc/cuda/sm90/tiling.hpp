// How a scan is cut up: a pure function of the request and the number of multiprocessors.
#pragma once

#include <algorithm>
#include <cstdint>

#include "geometry.hpp"

namespace metaindex::device::sm90 {

inline constexpr int kSharedBytes = 227 * 1024;  // the most that a block can have
inline constexpr int kStageBytes = kColumns * kSliceBytes;
// One slice of a block of rows. wgmma reads all of them; those without a query token hold whatever is there, and nothing looks
// at their results. They have room of their own, so that no product reads what a copy is writing.
inline constexpr int kQueryBytes = kRows * kSliceBytes;
inline constexpr int kMaxStages = 8;
// As many stages keep 96 KB on their way, several times what a multiprocessor's share of the bandwidth needs for its latency.
inline constexpr int kMinStages = 3;
inline constexpr int kItems = 8;  // at least as many as stages: a tile may take just one
// Query tiles that are scanned at once; more of them are scanned one wave after another. A wave of 12 tiles has 1,536 rows or
// more, for which reading the documents takes a small part of the time, and its queries stay in the L2.
inline constexpr int kMaxWave = 12;

// Maxima that wait to be summed: of kScratchDocuments documents for each row. Rows of 68 floats: a warp stores 8 rows of 4
// pairs of documents at once, to 32 banks.
inline constexpr int kScratchLog2 = 5;
inline constexpr int kScratchDocuments = 1 << kScratchLog2;
inline constexpr int kScratchStride = kRows + 4;

// What a warpgroup does next: one block of a tile against one block of its rows.
struct Item {
    int32_t row;        // of the snapshot, of the tile's first document: keys hold no more than 2^31 rows
    int32_t segment;    // where that is,
    int32_t first;      // and its row there
    int32_t rows;       // documents; 0: there are no more tiles
    int32_t tokens;     // that the longest of them has, r_c at most
    int32_t block;      // of kColumns columns
    int32_t last;       // whether the tile has no more of those
    int32_t row_block;  // of kRows rows
    int32_t masked;     // whether the columns' factors count
    int32_t tile;       // counts the thread block's tiles
};

struct Tiling {
    DocumentTile documents;
    int32_t slices;  // of a vector, the last one filled up with zeros

    int32_t queries;     // in a block of rows
    int32_t parts;       // blocks of rows that a query takes, where it has more than kRows tokens
    int32_t row_blocks;  // of a warpgroup, in one tile
    int32_t box_rows;    // rows of a block that are loaded
    int32_t tiles;       // of queries
    int32_t wave;        // of those at a time

    bool alternate;  // the warpgroups take tiles in turn; otherwise both take every tile, each with rows of its own
    bool resident;   // queries stay in shared memory; otherwise their slices come with the documents'
    bool held;       // a tile stays in its stages until all blocks of rows have seen it; otherwise it comes again for each

    int32_t stages;
    int32_t stage_bytes;
    int32_t ring, columns, scratch, totals, items, barriers;  // where these start in shared memory; the queries are first
    int32_t shared_bytes;

    METAINDEX_HOST_DEVICE constexpr int query_owners() const { return alternate ? 1 : kConsumers; }
    // Queries of a warpgroup in one tile.
    METAINDEX_HOST_DEVICE constexpr int owned() const { return parts > 1 ? 1 : row_blocks * queries; }
    METAINDEX_HOST_DEVICE constexpr int tile_queries() const { return query_owners() * owned(); }
    // The first query of a warpgroup's block of rows.
    METAINDEX_HOST_DEVICE constexpr int first_query(int tile, int owner, int row_block) const {
        return (tile * query_owners() + owner) * owned() + (parts > 1 ? 0 : row_block * queries);
    }
    // The first token, of each of its queries, of a block of rows.
    METAINDEX_HOST_DEVICE constexpr int first_token(int row_block) const { return parts > 1 ? row_block * kRows : 0; }
};

struct ScanShape {
    Codec codec;
    int64_t dim;
    int32_t r_c;
    int32_t batch, tokens;  // of queries
    int32_t multiprocessors;
};

namespace detail {

// Everything that lies behind the queries; false where fewer than `least` stages fit.
constexpr bool lay_out(Tiling& t, int least) {
    constexpr int kColumnBytes = kItems * kColumns * 4;
    constexpr int kScratchBytes = kConsumers * kScratchDocuments * kScratchStride * 4;
    const int total_bytes = t.parts > 1 ? kConsumers * kColumns * 4 : 0;
    constexpr int kItemBytes = kItems * static_cast<int>(sizeof(Item));
    constexpr int kBarrierBytes = (2 * kMaxStages + 2 * kItems + 1) * 8;
    const int other = kColumnBytes + kScratchBytes + total_bytes + kItemBytes + kBarrierBytes;

    const int64_t queries = t.resident ? int64_t{t.query_owners()} * t.row_blocks * t.slices * kQueryBytes : 0;
    t.stage_bytes = kStageBytes + (t.resident ? 0 : t.query_owners() * kQueryBytes);
    const int64_t stages = (kSharedBytes - other - queries) / t.stage_bytes;
    if (stages < least) return false;
    t.stages = static_cast<int32_t>(std::min<int64_t>(stages, kMaxStages));
    t.ring = static_cast<int32_t>(queries);
    t.columns = t.ring + t.stages * t.stage_bytes;
    t.scratch = t.columns + kColumnBytes;
    t.totals = t.scratch + kScratchBytes;
    t.items = t.totals + total_bytes;
    t.barriers = t.items + kItemBytes;
    t.shared_bytes = t.barriers + kBarrierBytes;
    return true;
}

}  // namespace detail

constexpr Tiling tiling(const ScanShape& shape) {
    Tiling t{};
    const int64_t bytes = shape.dim * itemsize(shape.codec);
    t.documents = document_tile(shape.r_c);
    t.slices = static_cast<int32_t>(ceil_div(bytes, kSliceBytes));

    t.parts = static_cast<int32_t>(ceil_div(shape.tokens, kRows));
    t.queries = t.parts > 1 ? 1 : std::min(kRows / shape.tokens, shape.batch);
    t.box_rows = t.parts > 1 ? kRows : t.queries * shape.tokens;
    t.alternate = shape.batch <= t.queries;

    // Two blocks of rows halve what is read of the documents, which pays where their slices are few: with 256 rows a tile of
    // 128-dimensional documents moves 16 bytes per cycle into each multiprocessor, with 128 rows 32, more than the L2 gives.
    const bool two = t.parts == 1 && shape.batch > kConsumers * t.queries;
    t.row_blocks = two ? 2 : t.parts;
    t.resident = true;
    t.held = t.row_blocks > 1;
    const int tile_stages = t.documents.blocks * t.slices;
    // Held tiles want room for the next one beside them.
    bool fits = detail::lay_out(t, kMinStages) && (!t.held || 2 * tile_stages <= t.stages);
    if (!fits) {
        t.row_blocks = t.parts;
        t.held = false;
        fits = detail::lay_out(t, kMinStages);
    }
    if (!fits) {
        t.resident = false;
        detail::lay_out(t, 1);
    }

    t.tiles = static_cast<int32_t>(ceil_div(shape.batch, t.tile_queries()));
    const int most = std::max(1, std::min(kMaxWave, shape.multiprocessors));
    t.wave = static_cast<int32_t>(ceil_div(t.tiles, ceil_div(t.tiles, most)));
    return t;
}

// Thread blocks for each query tile of a wave; each of them takes every so manieth tile of documents.
constexpr int blocks_per_tile(int wave, int multiprocessors, int runs) {
    return std::max(1, std::min(multiprocessors / wave, runs));
}

}  // namespace metaindex::device::sm90
