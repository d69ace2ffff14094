// What the copy engine is told of the documents and queries: tensors, and the boxes that are cut from them.
#pragma once

#include <cstdint>

#include "metaindex/device.hpp"
#include "tiling.hpp"

namespace metaindex::device::sm90 {

// A tensor of three dimensions, the first of them contiguous, and the box that one copy takes from it.
struct Box {
    uint64_t address;
    uint64_t sizes[3];
    uint64_t strides[2];  // bytes, of the second and third dimension
    uint32_t box[3];
    Codec codec;
};

inline constexpr int kMapBytes = 128;  // of an encoded box

// Levels [rows, width, dim] are given as (dim, rows, width), so that a box is filled document by document within each token. No
// coordinate is above the documents of a segment, whatever their tokens come to.
constexpr Box level_box(uint64_t address, int64_t rows, int32_t width, int64_t dim, Codec codec, DocumentTile tile, Piece piece) {
    const auto token = static_cast<uint64_t>(dim * itemsize(codec));
    return {address,
            {static_cast<uint64_t>(dim), static_cast<uint64_t>(rows), static_cast<uint64_t>(width)},
            {static_cast<uint64_t>(width) * token, token},
            {static_cast<uint32_t>(kSliceBytes / itemsize(codec)), static_cast<uint32_t>(tile.documents()),
             static_cast<uint32_t>(piece.tokens)},
            codec};
}

// Queries [batch, tokens, dim]: a box is one slice of a block of rows.
constexpr Box query_box(const Queries& queries, int64_t dim, Codec codec, const Tiling& t) {
    const auto token = static_cast<uint64_t>(dim * itemsize(codec));
    return {reinterpret_cast<uintptr_t>(queries.codes),
            {static_cast<uint64_t>(dim), static_cast<uint64_t>(queries.tokens), static_cast<uint64_t>(queries.batch)},
            {token, static_cast<uint64_t>(queries.tokens) * token},
            {static_cast<uint32_t>(kSliceBytes / itemsize(codec)),
             static_cast<uint32_t>(t.parts > 1 ? kRows : queries.tokens), static_cast<uint32_t>(t.queries)},
            codec};
}

// Writes kMapBytes to `map`, which is aligned to 64. Throws std::runtime_error where the driver refuses.
void encode(const Box& box, void* map);

// On the device: how a scan at one r_c finds the documents of one table. The memory is the caller's.
struct Boxes {
    const void* maps;       // [segments, count], kMapBytes each and aligned to that; anything where no document has the tokens
    const Place* places;    // [r_c]
    const Piece* pieces;    // [count]
    const int32_t* starts;  // [blocks + 1], a block's first piece
    int32_t count;
};

}  // namespace metaindex::device::sm90
