// What lies where in the shared memory of the MaxSim kernels, in bytes.
#pragma once

#include "parameters.hpp"

namespace metaindex::device {

// maxsim_stream: the queries, chunk by chunk, once per block; then for each warp a ring of stages that only its own threads
// touch, each thread the cells that it filled itself.
struct StreamLayout {
    static constexpr int kStages = 4;
    static constexpr int kCells = kStreamStrips;  // pieces of a stage that a thread holds, one per strip
    static constexpr int kCellsBytes = kCells * 32 * kPieceBytes;

    int32_t query_stride;  // columns from one query to the next
    int32_t query_columns;
    int32_t weights, rings, stage_bytes, bytes;

    // Queries side by side start at column tiles. One alone takes no more room than its tokens.
    METAINDEX_HOST_DEVICE static constexpr StreamLayout of(const MaxSim& p, int warps) {
        StreamLayout l{};
        l.query_stride = p.columns.queries > 1 ? p.columns.query_tiles * kTileColumns : p.queries.tokens;
        l.query_columns = p.columns.queries * l.query_stride;
        l.weights = p.chunks() * l.query_columns * kChunkBytes;
        l.rings = l.weights + p.columns.tiles() * kTileColumns * static_cast<int32_t>(sizeof(float));
        l.stage_bytes = kCellsBytes + (p.table.codec == Codec::int8 ? 32 * static_cast<int32_t>(sizeof(float)) : 0);
        l.bytes = l.rings + warps * kStages * l.stage_bytes;
        return l;
    }
};

// maxsim_tile: a ring of stages with chunks of 128 rows and up to 128 columns, and what copies and products need to know. The
// copies run up to kStages - 1 stages ahead of the products, and each stage may belong to another step of another pass: so
// there are rings of steps and passes too.
struct TileLayout {
    static constexpr int kStages = 4;
    static constexpr int kRing = 4;

    alignas(128) unsigned char rows[kStages][kTileRows * kChunkBytes];
    unsigned char columns[kStages][kTileBlockColumns * kChunkBytes];
    // Of the copies.
    const unsigned char* row_source[kTileRows];  // null for none
    const unsigned char* column_source[kTileBlockColumns];
    int64_t document_row[kTileRows];  // within its segment
    int32_t document_segment[kTileRows];
    int32_t document_tokens[kTileRows];
    // Of the products.
    float factor[kRing][kTileRows];          // of a row's products in a step; negative: the row counts for nothing
    float weight[kRing][kTileBlockColumns];  // of a column in a pass
    int64_t target[kRing][kTileRows];        // of a document in a pass; -1: it is not wanted
    int64_t query[kRing];                    // the first of a pass
    float total[2][kTileRows];               // of a document with the one query of a group, over the passes so far
};

static_assert(TileLayout::kRing >= TileLayout::kStages, "what a stage needs stays until its scores are out");

}  // namespace metaindex::device
