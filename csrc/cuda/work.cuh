// What one launch of a MaxSim kernel is told, and how it finds documents and their tokens.
#pragma once

#include <cstdint>

#include "metaindex/cuda.hpp"

namespace metaindex::device {

struct Work {
    Table table;
    Queries queries;
    Output out;
    const uint8_t* allow;       // null for all
    const int32_t* runs;        // of a scan
    const int64_t* candidates;  // of a gather [lists, count]
    int64_t count;
    int64_t tiles;           // the product of the next three
    int32_t document_tiles;  // of one list of candidates, or of the runs
    int32_t groups;          // of queries that share a tile of documents
    int32_t lists;           // of candidates, where each query has its own
    int32_t r_c;
    int32_t row_bytes;
    TileChoice tile;
};

#if defined(__CUDACC__)

// Which documents and queries a tile compares. Tiles of the same documents follow one another, so that blocks that run side by
// side find them in the second-level cache.
struct TilePlace {
    int32_t documents;  // tile of documents
    int32_t list;       // of candidates
    int32_t query;      // the first

    __device__ TilePlace(const Work& work, int64_t tile) {
        const int64_t document_tile = tile / work.groups;
        documents = static_cast<int32_t>(document_tile % work.document_tiles);
        list = static_cast<int32_t>(document_tile / work.document_tiles);
        query = list + static_cast<int32_t>(tile % work.groups) * work.tile.queries;
    }
};

struct Document {
    int64_t column;  // where its score goes; -1 where there is no such document
    int64_t row;     // of the snapshot; -1 where it is left out
    int32_t segment;
    int64_t inside;  // row of the segment

    __device__ bool asked() const { return row >= 0; }
};

template <bool kGather>
__device__ inline Document find_document(const Work& work, const TilePlace& place, int document) {
    Document found{-1, -1, 0, 0};
    if constexpr (kGather) {
        const int64_t at = static_cast<int64_t>(place.documents) * work.tile.documents + document;
        if (at >= work.count) return found;
        found.column = at;
        const int64_t row = work.candidates[place.list * work.count + at];
        if (row < 0) return found;
        int32_t low = 0, high = work.table.segments - 1;  // the last segment that starts at or before the row
        while (low < high) {
            const int32_t middle = (low + high + 1) / 2;
            if (work.table.first_rows[middle] <= row)
                low = middle;
            else
                high = middle - 1;
        }
        found.segment = low;
        found.inside = row - work.table.first_rows[low];
        found.row = row;
    } else {
        const int32_t* run = work.runs + 3 * static_cast<int64_t>(place.documents);
        if (document >= run[2]) return found;
        found.segment = run[0];
        found.inside = run[1] + document;
        found.row = found.column = work.table.first_rows[found.segment] + found.inside;
    }
    if (work.allow && !work.allow[found.row]) found.row = -1;
    return found;
}

// Whether a document that is asked for has a token, and where.
struct Token {
    int32_t level;
    int64_t at;  // among the tokens of its level

    __device__ static bool exists(const Work& work, const Document& document, int token) {
        return document.asked() && token < work.r_c && (work.table.full || token < work.table.lengths[document.row]);
    }
    __device__ Token(const Table& table, const Document& document, int token) : level(table.token_levels[token]) {
        at = document.inside * table.widths[level] + token - table.starts[level];
    }
    __device__ const char* codes(const Work& work, int32_t segment) const {
        const int64_t level_start = work.table.codes[segment * static_cast<int64_t>(work.table.levels) + level];
        return reinterpret_cast<const char*>(level_start) + at * work.row_bytes;
    }
    __device__ float scale(const Table& table, int32_t segment) const {
        const int64_t level_start = table.scales[segment * static_cast<int64_t>(table.levels) + level];
        return reinterpret_cast<const float*>(level_start)[at];
    }
};

#endif

}  // namespace metaindex::device
