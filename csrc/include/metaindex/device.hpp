// What GPU kernels are given: addresses on the device, in the layout that metaindex/device describes.
//
// The host side of every operation takes these by value, launches on the given stream and returns at once: it never waits for
// the device, reads from it, or allocates.
#pragma once

#include <cstdint>

#include "metaindex/isa.hpp"

namespace metaindex::device {

using Stream = void*;  // a cudaStream_t, so that nothing outside csrc/cuda needs CUDA's headers

// S segments, L levels; see DeviceTable in metaindex/device/table.py, whose names these are.
struct Table {
    const int64_t* codes;         // [S, L], multiples of 16
    const int64_t* scales;        // [S, L], null for codecs without
    const int64_t* first_rows;    // [S + 1]
    const int32_t* lengths;       // [rows]
    const int32_t* starts;        // [L]
    const int32_t* widths;        // [L]
    const int32_t* token_levels;  // [tokens]
    const int32_t* places;        // [rows], null where a row's place is its number
    int32_t segments, levels, tokens, dim;
    int64_t rows;
    Codec codec;
    bool full;  // every document has all tokens
};

struct Queries {
    const void* codes;       // [batch, tokens, dim]
    const float* scales;     // [batch, tokens], null for codecs without
    const int32_t* lengths;  // [batch]
    int32_t batch, tokens;
};

// Runs of rows of one segment, none longer than size: [count, 3] of segment, first row within it, rows.
struct Runs {
    const int32_t* runs;
    int32_t count, size;
};

// Lists of rows of the snapshot, -1 for none: [1, count] for all queries, or [batch, count].
struct Candidates {
    const int64_t* rows;
    int64_t lists, count;
};

// Room for keys, as metaindex/device/keys.py makes them.
struct Hits {
    int64_t* keys;              // [batch, capacity]
    int32_t* counts;            // [batch], of keys written so far
    const int64_t* thresholds;  // [batch]
    int64_t capacity;
};

// Scores [batch, columns] to fill, or, where scores is null, hits to append to.
struct Output {
    float* scores;
    int64_t columns;
    Hits hits;
};

}  // namespace metaindex::device
