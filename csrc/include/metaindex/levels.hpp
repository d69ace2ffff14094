// The stored tokens of a snapshot, as pointers: what every scoring operation reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace metaindex {

// How the numbers of a token are kept. bfloat16 is the upper half of a float32.
enum class Codec : uint8_t { float32, float16, bfloat16, int8 };

inline constexpr int64_t itemsize(Codec codec) { return codec == Codec::float32 ? 4 : codec == Codec::int8 ? 1 : 2; }

// Codes [rows, width, dim] and, for int8, scales [rows, width]; both contiguous. Row r is row r of the segment.
struct Level {
    const std::byte* codes;
    const float* scales;
    int64_t rows;
};

// Documents by falling length, so those that reach a level are its first rows.
struct Segment {
    std::vector<Level> levels;
    const int32_t* lengths;   // [rows], at least 1: tokens at or past a document's length are padding
    const int64_t* sequence;  // [rows], unique over all segments: equal scores rank by it, smaller first
    int64_t rows;
    int64_t first_row;  // the snapshot row of this segment's row 0
};

// Level l holds tokens [starts[l], starts[l] + widths[l]) in every segment that has it. The memory belongs to the caller.
struct LevelTable {
    Codec codec;
    int64_t dim;
    std::vector<int64_t> starts;
    std::vector<int64_t> widths;
    std::vector<Segment> segments;

    int64_t rows() const { return segments.empty() ? 0 : segments.back().first_row + segments.back().rows; }
    int64_t token_bytes() const { return dim * itemsize(codec); }
};

}  // namespace metaindex
