// The contract between the drivers and the kernels of each instruction set.
//
// Query tokens are packed into groups of 16 lanes ("panels"), document tokens are staged in blocks of 16. A kernel multiplies
// panels with blocks and folds the products into running maxima, one per (document, lane). Both sides are cut along the
// dimension into units of four bytes (1 float, 2 bfloat16 or int16, 4 int8): in a panel, unit u of all 16 lanes is one run of
// 64 bytes; in a staged token the units follow one another. Long tokens are taken in chunks that fit the first-level cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "metaindex/levels.hpp"

namespace metaindex {

inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kBlock = 16;
inline constexpr int64_t kUnitBytes = 4;
inline constexpr int64_t kChunkUnits = 128;
inline constexpr int64_t kStagedBytes = kChunkUnits * kUnitBytes;  // between staged tokens
inline constexpr int64_t kMaxStagedTokens = 64;

// What a unit is made of, and so how queries are packed and document tokens staged.
enum class Element : uint8_t { float32, int32, int16, int8, bfloat16 };

inline constexpr int64_t unit_dims(Element element) {
    switch (element) {
        case Element::int8: return 4;
        case Element::int16:
        case Element::bfloat16: return 2;
        default: return 1;
    }
}

// Document tokens that follow one another in memory.
struct Span {
    const std::byte* codes;
    int64_t tokens;
};

// Where a panel keeps its lanes: side by side for every unit, or each lane's chunk in one piece (kernels along the dimension).
enum class Layout : uint8_t { lanes, rows };

// One chunk of `count` document tokens against `groups` panels.
struct TileJob {
    const std::byte* panel;
    int64_t panel_stride;  // bytes between groups
    const int32_t* bias;   // [groups * kLanes], where accumulators start; null for zero
    int64_t groups;
    int64_t lanes;         // lanes in use; only kernels of layout `rows` look at it
    const std::byte* tokens;
    int64_t token_stride;  // bytes; kStagedBytes unless the kernel reads in place
    int64_t units;
    int64_t count;         // 1..kMaxStagedTokens; rows up to the next multiple of kBlock are readable
    const float* scales;   // [count], meaningless without scales; readable like the rows
    const int32_t* slots;  // [count], the document of each token; readable like the rows
    float* best;           // running maxima [slot][best_stride]
    int64_t best_stride;   // groups of the slab * kLanes
    const std::byte* const* next;  // [count rounded up to kBlock]: where tokens lie that come soon, to be prefetched
    int64_t next_offset;           // bytes into each of them
    int64_t next_lines;            // cache lines of each of them
    std::byte* partial;    // accumulators between chunks [group][token][kLanes], 4 bytes each
    bool first;
    bool last;
};

namespace {

// One cache line of what comes next for every unit that a block of kTokens tokens from `first` on multiplies.
template <int kTokens>
inline void prefetch_next(const TileJob& job, int64_t first, int64_t group, int64_t unit) {
    const int64_t line = unit / kTokens;
    if (group == 0 && line < job.next_lines) {
        __builtin_prefetch(job.next[first + unit % kTokens] + job.next_offset + line * 64);
    }
}

}  // namespace

struct TileKernel {
    const char* name;
    Element element;
    Layout layout;
    bool unsigned_tokens;   // int8 codes are staged with 128 added; the panel's bias takes it back
    bool in_place;          // tokens whose units need no padding are read where they lie
    int64_t units_multiple; // units of a token are padded to a multiple of this
    int64_t staged_tokens;  // how many tokens a job takes at most
    // Writes `dims` numbers of each token, from number `first` on, to dst with kStagedBytes between tokens.
    void (*stage)(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst);
    void (*multiply)(const TileJob& job);
    void (*enter)();  // around a thread's work; null where the processor keeps no state
    void (*leave)();
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
