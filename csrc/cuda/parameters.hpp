// What the kernels are given, by value: plain data, so that a launch is bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "metaindex/device.hpp"
#include "rows.hpp"

namespace metaindex::device {

// The documents of a MaxSim kernel, numbered from 0: those of the runs one run after another, all counted alike
// (what is not there scores nothing); or the candidates of a list.
struct Documents {
    const int32_t* runs;        // null for a gather
    const int64_t* candidates;  // [lists, count]
    int64_t count;              // of numbers
    int32_t run_shift;          // runs count as 2^run_shift rows
    bool own_lists;             // each query has a list of its own
};

struct MaxSim {
    Table table;
    Queries queries;
    Output output;
    const uint8_t* allow;  // [rows] or null
    Documents documents;
    int32_t r_c;            // at most the table's tokens
    int32_t row_bytes;      // of one token's codes
    int32_t copy_bytes;     // the widest copies that rows are aligned for, 1 to 16
    RowMap rows;            // of a warp
    ColumnMap columns;      // of a warp
    int32_t column_blocks;  // that cover the batch; with lists of their own, each query is one
    int32_t groups;         // of columns in such a block, each for warps of its own: 1 or 2
    int32_t blocks;         // thread blocks of maxsim_stream for each block of columns
    int64_t units;          // of documents: what a warp of maxsim_stream or a block of maxsim_tile takes at once

    METAINDEX_HOST_DEVICE constexpr int chunks() const { return (row_bytes + kChunkBytes - 1) / kChunkBytes; }
};

// Threads of a block of maxsim_tile: two warps of rows by two of columns.
inline constexpr unsigned kTileThreads = 128;
inline constexpr int kTileStrips = 8;
inline constexpr int kTileRowWarps = 2;
inline constexpr int kTileRows = kTileRowWarps * kTileStrips * kStripRows;
inline constexpr int kTileBlockColumns = 2 * ColumnMap::kMostTiles * kTileColumns;

inline constexpr int kStreamStrips = 4;
inline constexpr int kStreamRows = kStreamStrips * kStripRows;
inline constexpr int kStreamMostWarps = 8;

struct TopK {
    const int64_t* keys;    // [batch, columns]
    const int32_t* counts;  // [batch], of keys that are there; null for all
    int64_t* best;          // [batch, k], falling
    int32_t batch;
    int64_t columns, k;
    std::byte* scratch;
};

// A round over slices of each query's keys: the k best of each slice, falling where there is just one, else in no order.
struct TopKSlices {
    const int64_t* keys;    // [batch, columns]
    const int32_t* counts;  // [batch] or null for all
    int64_t* best;          // [batch, slices, k]
    int64_t columns;
    int32_t slices, k;
};

// Threads of the blocks of topk's kernels, and keys of a slice, which they hold in registers.
inline constexpr int kTopKThreads = 1024;
inline constexpr int kSliceKeys = 8 * kTopKThreads;
// The most that a round over slices leaves, an eighth; larger k are selected by all blocks together.
inline constexpr int kSliceMostK = kSliceKeys / 8;
inline constexpr int kSortedRun = 4096;  // ordinals that a block sorts in shared memory
inline constexpr int kMergeThreads = 256;
inline constexpr int kMergeItems = 8;  // of a thread

}  // namespace metaindex::device
