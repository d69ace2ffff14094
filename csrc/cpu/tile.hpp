// The contract between the drivers and the kernels of each instruction set.
//
// Query tokens are packed into groups of 16 lanes ("panels"), document tokens are staged in blocks. A kernel multiplies panels
// with blocks and folds the products into running maxima, one per (document, lane). Both sides are cut along the dimension into
// units of a few bytes: in a panel, unit u of all 16 lanes is one run of memory; in a staged token the units follow one
// another. Long tokens are taken in chunks that fit the first-level cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "metaindex/levels.hpp"

namespace metaindex {

inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kBlock = 16;
inline constexpr int64_t kStagedBytes = 512;  // a chunk of one token, and the distance between staged tokens
inline constexpr int64_t kFewLanes = 2;       // as many as kernels of layout `rows` are made for
inline constexpr int64_t kMaxStagedTokens = 64;
inline constexpr int64_t kPartialStride = kMaxStagedTokens * 128;  // bytes of accumulators between groups

// What a unit is made of, and so how queries are packed and document tokens staged.
// `halves` are float16 numbers as two bfloat16 that add up to them exactly: of 32 numbers, unit i holds number i and number
// 16 + i; first come the upper halves of a chunk, then the lower ones.
enum class Element : uint8_t { float32, int32, int16, int8, bfloat16, halves };

inline constexpr int64_t itemsize(Element element) {
    switch (element) {
        case Element::int8: return 1;
        case Element::int16:
        case Element::bfloat16: return 2;
        default: return 4;
    }
}

// Document tokens that follow one another in memory.
struct Span {
    const std::byte* codes;
    int64_t tokens;
};

// How a panel keeps its lanes. `quads`: units of 4 bytes, one vector of 16 lanes. `pairs`: units of 8 bytes, two vectors of 8
// lanes, whose halves are added at the end; half as many loads of document tokens feed as many multiplications, which pays for
// a single group. `rows`: each lane's chunk in one piece, for kernels that go along the dimension.
enum class Layout : uint8_t { quads, pairs, rows };

inline constexpr int64_t unit_bytes(Layout layout) { return layout == Layout::pairs ? 8 : 4; }

// Where in a panel's unit a lane stands: in `pairs` such that adding the halves restores the order of lanes.
inline constexpr int64_t position(Layout layout, int64_t lane) {
    return layout == Layout::pairs ? lane % 4 / 2 * 8 + lane / 4 * 2 + lane % 2 : lane;
}

// One chunk of `count` document tokens against `groups` panels.
struct TileJob {
    const std::byte* panel;
    int64_t panel_stride;  // bytes between groups
    const int32_t* bias;   // where accumulators start: the first vectors of each group; null for zero
    int64_t groups;
    int64_t lanes;  // lanes in use; only kernels of layout `rows` look at it
    const std::byte* tokens;
    int64_t token_stride;  // bytes; kStagedBytes unless they are read in place
    bool in_place;
    int64_t units;
    int64_t dims;          // without padding
    int64_t count;         // 1..kMaxStagedTokens; rows up to the next multiple of kBlock are readable
    const float* scales;   // [count], meaningless without scales; readable like the rows
    const int32_t* slots;  // [count], the document of each token; readable like the rows
    float* best;           // running maxima [slot][best_stride]; in layout `rows` [lane][best_stride]
    int64_t best_stride;
    // What comes soon, to be prefetched: tokens that lie side by side and are multiplied whole, or where each of them lies
    // [count rounded up to kBlock], or neither.
    const std::byte* next_run;
    int64_t next_stride;
    const std::byte* const* next;
    int64_t next_offset;  // bytes into each of them
    int64_t next_lines;   // cache lines of each of them
    std::byte* partial;   // accumulators between chunks: kPartialStride for each group, the rest is the kernel's choice
    bool first;
    bool last;
};

namespace {

// Asks for what comes next, a few cache lines at a time: a processor has few places for lines under way, and where they are all
// taken it waits instead of multiplying. Lines go to the second-level cache, which has more such places than the first.
class Upcoming {
 public:
    // Goes with the first group only: the others use the same tokens.
    Upcoming(const TileJob& job, int64_t group, int64_t first, int64_t tokens)
        : offset_(job.next_offset), row_bytes_(job.next_lines * 64) {
        if (group != 0) return;
        if (job.next_run) {
            at_ = job.next_run + first * job.next_stride;
            left_ = tokens * job.next_stride;
        } else if (job.next) {
            row_ = job.next + first;
            end_ = row_ + tokens;
        }
    }

    void fetch(int64_t count) {
        for (; count > 0; --count, at_ += 64, left_ -= 64) {
            if (left_ <= 0) {
                if (row_ == end_) return;
                at_ = *row_++ + offset_;
                left_ = row_bytes_;
            }
            __builtin_prefetch(at_, 0, 2);
        }
    }

 private:
    const std::byte* at_ = nullptr;
    int64_t left_ = 0;
    const std::byte* const* row_ = nullptr;
    const std::byte* const* end_ = nullptr;
    int64_t offset_;
    int64_t row_bytes_;
};

}  // namespace

// Writes `dims` numbers of each token, from number `first` on, to dst with kStagedBytes between tokens; up to the next vector
// of 64 bytes (32, for processors that have no longer ones) zeros follow.
using Stage = void (*)(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst);

struct TileKernel {
    const char* name;
    Element element;
    Layout layout;
    bool unsigned_tokens;    // int8 codes are staged with 128 added; the panel's bias takes it back
    bool in_place;           // tokens whose units need no padding are read where they lie; in layout `rows`, all
    int64_t units_multiple;  // units of a token are padded to a multiple of this
    int64_t staged_tokens;   // how many tokens a job takes at most
    Stage stage;
    void (*multiply)(const TileJob& job);
    void (*enter)();  // around a thread's work; null where the processor keeps no state
    void (*leave)();
    int64_t worth_a_thread = 8'000'000;  // multiplications of a scan: some tens of microseconds, as waking a thread takes
};

// The kernel of an instruction set for a codec and a number of query lanes, or null where it has none.
const TileKernel* kernel_serial(Codec codec, int64_t lanes);
const TileKernel* kernel_generic(Codec codec, int64_t lanes);
const TileKernel* kernel_avx2(Codec codec, int64_t lanes);
const TileKernel* kernel_avx512(Codec codec, int64_t lanes);
const TileKernel* kernel_avx512vnni(Codec codec, int64_t lanes);
const TileKernel* kernel_avx512bf16(Codec codec, int64_t lanes);
const TileKernel* kernel_amx(Codec codec, int64_t lanes);

}  // namespace metaindex
