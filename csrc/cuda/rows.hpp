// Which document and which of its tokens a row of a product is, and which query token a column.
#pragma once

#include <cstdint>

#include "fragments.hpp"

namespace metaindex::device {

// The rows of a warp: 2^document_bits documents, and in each step the next 2^token_bits tokens of each.
//
// From 8 documents on a thread's rows belong to documents of its own, and the maximum over tokens stays in its registers. With
// fewer, neighbouring rows are neighbouring tokens, and the maximum crosses the warp once per document.
struct RowMap {
    int32_t document_bits;
    int32_t token_bits;

    METAINDEX_HOST_DEVICE constexpr int documents() const { return 1 << document_bits; }
    METAINDEX_HOST_DEVICE constexpr int tokens() const { return 1 << token_bits; }
    METAINDEX_HOST_DEVICE constexpr int document(int strip, int row) const {
        return document_bits < kStripBits ? row & (documents() - 1) : row + (strip >> token_bits << kStripBits);
    }
    // Of the tokens of a step.
    METAINDEX_HOST_DEVICE constexpr int token(int strip, int row) const {
        return document_bits < kStripBits ? (strip << (kStripBits - document_bits)) + (row >> document_bits)
                                          : strip & (tokens() - 1);
    }
    // Whether the row is the first of its document's.
    METAINDEX_HOST_DEVICE constexpr bool leads(int strip, int row) const { return token(strip, row) == 0; }
};

// The columns of a product: `queries` queries side by side, each from a column tile of its own on. A query that takes more than
// kMostTiles is done in `passes`, and there is one of it.
struct ColumnMap {
    static constexpr int kMostTiles = 8;

    int32_t queries;
    int32_t query_tiles;  // of each query, in one pass
    int32_t passes;

    METAINDEX_HOST_DEVICE constexpr int tiles() const { return queries * query_tiles; }
    METAINDEX_HOST_DEVICE constexpr int query(int column) const { return column / kTileColumns / query_tiles; }
    METAINDEX_HOST_DEVICE constexpr int token(int pass, int column) const {
        return pass * kMostTiles * kTileColumns + column % (query_tiles * kTileColumns);
    }
};

// For queries of `tokens` tokens, of which up to `batch` are wanted side by side in at most `most` column tiles.
METAINDEX_HOST_DEVICE constexpr ColumnMap column_map(int32_t tokens, int32_t batch, int32_t most) {
    const int32_t tiles = (tokens + kTileColumns - 1) / kTileColumns;
    if (tiles > most) return {1, most, (tiles + most - 1) / most};
    const int32_t queries = most / tiles < batch ? most / tiles : batch;
    return {queries, tiles, 1};
}

}  // namespace metaindex::device
