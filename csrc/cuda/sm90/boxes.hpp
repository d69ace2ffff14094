// What the copy engine is told of the documents and queries: tensors, and the boxes that are cut from them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

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
constexpr Box level_box(uint64_t address, int64_t rows, int32_t width, int64_t dim, Codec codec, DocumentTile tile,
                        Piece piece) {
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
            {static_cast<uint32_t>(kSliceBytes / itemsize(codec)), static_cast<uint32_t>(t.parts > 1 ? kRows : queries.tokens),
             static_cast<uint32_t>(t.queries)},
            codec};
}

// Writes kMapBytes to `map`, which is aligned to 64. Throws std::runtime_error where the driver refuses.
void encode(const Box& box, void* map);

// On the device: how a scan at one r_c finds the documents of one table. The memory is the caller's.
struct Boxes {
    const void* maps;       // [segments, count], kMapBytes each and aligned to that; anything where no document has the tokens
    const Source* sources;  // [r_c], of each token
    const Piece* pieces;    // [count]
    const int32_t* starts;  // [blocks + 1], a block's first piece
    int32_t count;
};

// Levels as the host knows them.
struct LevelAddresses {
    const int64_t* codes;   // [segments, levels], addresses on the device
    const int64_t* rows;    // [segments, levels], documents that reach each level
    const int32_t* starts;  // [levels]
    const int32_t* widths;  // [levels]
    int32_t segments, levels, dim;
    Codec codec;
};

// The boxes of one table at one r_c in one piece of memory: maps, sources, pieces, starts.
class BoxWriter {
 public:
    BoxWriter(const LevelAddresses& levels, int32_t r_c)
        : levels_(levels),
          r_c_(r_c),
          tile_(document_tile(r_c)),
          pieces_(pieces_of(levels.starts, levels.widths, levels.levels, r_c, tile_)),
          count_(static_cast<int64_t>(pieces_.pieces.size())),
          sources_at_(levels.segments * count_ * kMapBytes),
          pieces_at_(sources_at_ + r_c * static_cast<int64_t>(sizeof(Source))),
          starts_at_(pieces_at_ + count_ * static_cast<int64_t>(sizeof(Piece))) {}

    int64_t bytes() const { return starts_at_ + (tile_.blocks + 1) * static_cast<int64_t>(sizeof(int32_t)); }

    // To `host`, aligned to 64 bytes; `encoded` is `encode`, or stands in for it where there is no driver.
    template <typename Encode>
    void write(std::byte* host, const Encode& encoded) const {
        for (int64_t segment = 0; segment < levels_.segments; ++segment) {
            for (int64_t i = 0; i < count_; ++i) {
                const int32_t level = pieces_.levels[static_cast<size_t>(i)];
                const int64_t at = segment * levels_.levels + level;
                std::byte* map = host + (segment * count_ + i) * kMapBytes;
                std::memset(map, 0, kMapBytes);
                if (levels_.rows[at] == 0) continue;  // no document has these tokens, so nobody asks for them
                encoded(level_box(static_cast<uint64_t>(levels_.codes[at]), levels_.rows[at], levels_.widths[level],
                                  levels_.dim, levels_.codec, tile_, pieces_.pieces[static_cast<size_t>(i)]),
                        map);
            }
        }
        auto* sources = reinterpret_cast<Source*>(host + sources_at_);
        for (int32_t level = 0; level < levels_.levels; ++level) {
            const int32_t start = levels_.starts[level], width = levels_.widths[level];
            for (int32_t token = start; token < std::min(r_c_, start + width); ++token) {
                sources[token] = {level, width, token - start, 0};
            }
        }
        std::memcpy(host + pieces_at_, pieces_.pieces.data(), pieces_.pieces.size() * sizeof(Piece));
        std::memcpy(host + starts_at_, pieces_.starts.data(), pieces_.starts.size() * sizeof(int32_t));
    }

    // What lies where once `device`, aligned to kMapBytes, holds a copy.
    Boxes boxes(const std::byte* device) const {
        return {device, reinterpret_cast<const Source*>(device + sources_at_),
                reinterpret_cast<const Piece*>(device + pieces_at_), reinterpret_cast<const int32_t*>(device + starts_at_),
                static_cast<int32_t>(count_)};
    }

 private:
    LevelAddresses levels_;
    int32_t r_c_;
    DocumentTile tile_;
    Pieces pieces_;
    int64_t count_;
    int64_t sources_at_, pieces_at_, starts_at_;
};

}  // namespace metaindex::device::sm90
