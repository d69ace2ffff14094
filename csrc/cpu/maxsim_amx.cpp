// AMX: 16 tokens x 16 lanes x 64 bytes per instruction. A panel is laid out as the tile register wants it.
#include "avx512_fold.hpp"

namespace metaindex {
namespace {

inline constexpr int64_t kTileUnits = 16;
inline constexpr int64_t kTileBytes = 1024;

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void enter() {
    static const TileConfig config;
    _tile_loadconfig(&config);
}

void leave() { _tile_release(); }

// Tiles 0 to 3 are sums, 4 and 5 tokens, 6 and 7 panels. The numbers of tile registers must be constants.
struct Bytes {
    using Sum = __m512i;
    static constexpr Element element = Element::int8;
    static void step00() { _tile_dpbssd(0, 4, 6); }
    static void step01() { _tile_dpbssd(1, 4, 7); }
    static void step10() { _tile_dpbssd(2, 5, 6); }
    static void step11() { _tile_dpbssd(3, 5, 7); }
};

struct Pairs {
    using Sum = __m512;
    static constexpr Element element = Element::bfloat16;
    static void step00() { _tile_dpbf16ps(0, 4, 6); }
    static void step01() { _tile_dpbf16ps(1, 4, 7); }
    static void step10() { _tile_dpbf16ps(2, 5, 6); }
    static void step11() { _tile_dpbf16ps(3, 5, 7); }
};

template <class Kind>
inline void fold_block(const TileJob& job, int64_t group, int64_t first, const std::byte* sums) {
    __m512 values[kBlock];
#pragma GCC unroll 16
    for (int t = 0; t < kBlock; ++t) {
        const auto* sum = reinterpret_cast<const typename Kind::Sum*>(sums + t * kLanes * 4);
        values[t] = similarity(*sum, job.scales + first + t);
    }
    fold(job, first, job.best + group * kLanes, values);
}

// kBlocks x kGroups blocks of 16 tokens x 16 lanes. Sums pass through memory: partial ones stay there, last ones are folded.
template <class Kind, int kBlocks, int kGroups>
inline void multiply_block(const TileJob& job, int64_t group, int64_t first) {
    const std::byte* tokens0 = job.tokens + first * job.token_stride;
    const std::byte* tokens1 = tokens0 + kBlock * job.token_stride;
    const std::byte* panel0 = job.panel + group * job.panel_stride;
    const std::byte* panel1 = panel0 + job.panel_stride;
    std::byte* sums00 = job.partial + group * kPartialStride + first * kLanes * 4;
    std::byte* sums01 = sums00 + kPartialStride;
    constexpr int64_t kPortion = kBlocks * kBlock / 4;
    Upcoming upcoming(job, group, first, kBlocks * kBlock);
    if (job.first) {
        _tile_zero(0);
        if constexpr (kGroups == 2) _tile_zero(1);
        if constexpr (kBlocks == 2) _tile_zero(2);
        if constexpr (kBlocks == 2 && kGroups == 2) _tile_zero(3);
    } else {
        _tile_loadd(0, sums00, 64);
        if constexpr (kGroups == 2) _tile_loadd(1, sums01, 64);
        if constexpr (kBlocks == 2) _tile_loadd(2, sums00 + kTileBytes, 64);
        if constexpr (kBlocks == 2 && kGroups == 2) _tile_loadd(3, sums01 + kTileBytes, 64);
    }
    // Tokens read where they lie are in the second-level cache by now; a tile's load has no others to wait beside, so those of
    // the next step come nearer meanwhile.
    const bool nearer = job.in_place && job.groups == 1;
    const std::byte* soon = tokens0 + kBlocks * kBlock * job.token_stride;
    for (int64_t u = 0; u < job.units; u += kTileUnits) {
        upcoming.fetch(kPortion);
        if (nearer) {
#pragma GCC unroll 32
            for (int64_t t = 0; t < kBlocks * kBlock; ++t) __builtin_prefetch(soon + t * job.token_stride + u * 4);
        }
        _tile_loadd(6, panel0 + u * 64, 64);
        _tile_loadd(4, tokens0 + u * 4, job.token_stride);
        upcoming.fetch(kPortion);
        Kind::step00();
        if constexpr (kGroups == 2) {
            _tile_loadd(7, panel1 + u * 64, 64);
            Kind::step01();
        }
        upcoming.fetch(kPortion);
        if constexpr (kBlocks == 2) {
            _tile_loadd(5, tokens1 + u * 4, job.token_stride);
            Kind::step10();
        }
        upcoming.fetch(kPortion);
        if constexpr (kBlocks == 2 && kGroups == 2) Kind::step11();
    }
    _tile_stored(0, sums00, 64);
    if constexpr (kGroups == 2) _tile_stored(1, sums01, 64);
    if constexpr (kBlocks == 2) _tile_stored(2, sums00 + kTileBytes, 64);
    if constexpr (kBlocks == 2 && kGroups == 2) _tile_stored(3, sums01 + kTileBytes, 64);
}

template <class Kind, int kGroups>
inline void fold_blocks(const TileJob& job, int64_t group, int64_t first, int64_t last) {
    for (int64_t at = first; at < last; at += kBlock) {
        for (int g = 0; g < kGroups; ++g) {
            fold_block<Kind>(job, group + g, at, job.partial + (group + g) * kPartialStride + at * kLanes * 4);
        }
    }
}

// Sums are folded one step late: loads that follow a tile's store at once would wait for it.
template <class Kind, int kGroups>
inline void multiply_groups(const TileJob& job, int64_t group) {
    int64_t first = 0, folded = 0;
    while (first < job.count) {
        const int64_t begun = first;
        if (first + kBlock < job.count) {
            multiply_block<Kind, 2, kGroups>(job, group, first);
            first += 2 * kBlock;
        } else {
            multiply_block<Kind, 1, kGroups>(job, group, first);
            first += kBlock;
        }
        if (job.last) fold_blocks<Kind, kGroups>(job, group, folded, begun);
        folded = begun;
    }
    if (job.last) fold_blocks<Kind, kGroups>(job, group, folded, first);
}

template <class Kind>
void multiply_tiles(const TileJob& job) {
    int64_t group = 0;
    for (; group + 2 <= job.groups; group += 2) multiply_groups<Kind, 2>(job, group);
    if (group < job.groups) multiply_groups<Kind, 1>(job, group);
}

template <int kItemBytes>
void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<int8_t, 64>(
        spans, count, token_bytes, first * kItemBytes, dims * kItemBytes, dst,
        [](std::byte* to, const int8_t* from, uint64_t mask) { _mm512_storeu_si512(to, _mm512_maskz_loadu_epi8(mask, from)); });
}

// float16 without an instruction of its own: with both factors in halves, four products of bfloat16 make one of float16, exact
// up to the float32 sums. Sums 0 and 2 take the products of like halves, 1 and 3 the others: four in a row on one sum would
// wait for one another.
template <int kBlocks>
inline void multiply_halves_block(const TileJob& job, int64_t group, int64_t first) {
    const std::byte* tokens0 = job.tokens + first * kStagedBytes;
    const std::byte* tokens1 = tokens0 + kBlock * kStagedBytes;
    const std::byte* upper = job.panel + group * job.panel_stride;
    const int64_t half = job.units / 2;
    const std::byte* lower = upper + half * 64;
    std::byte* sums = job.partial + group * kPartialStride + first * kLanes * 8;
    constexpr int64_t kPortion = kBlocks * kBlock / 4;
    Upcoming upcoming(job, group, first, kBlocks * kBlock);
    if (job.first) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (kBlocks == 2) _tile_zero(2);
        if constexpr (kBlocks == 2) _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + kTileBytes, 64);
        if constexpr (kBlocks == 2) _tile_loadd(2, sums + 2 * kTileBytes, 64);
        if constexpr (kBlocks == 2) _tile_loadd(3, sums + 3 * kTileBytes, 64);
    }
    for (int64_t u = 0; u < half; u += kTileUnits) {
        _tile_loadd(6, upper + u * 64, 64);
        _tile_loadd(7, lower + u * 64, 64);
        _tile_loadd(4, tokens0 + u * 4, kStagedBytes);
        upcoming.fetch(kPortion);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        upcoming.fetch(kPortion);
        if constexpr (kBlocks == 2) {
            _tile_loadd(5, tokens1 + u * 4, kStagedBytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        upcoming.fetch(kPortion);
        _tile_loadd(4, tokens0 + (half + u) * 4, kStagedBytes);
        _tile_dpbf16ps(0, 4, 7);
        _tile_dpbf16ps(1, 4, 6);
        upcoming.fetch(kPortion);
        if constexpr (kBlocks == 2) {
            _tile_loadd(5, tokens1 + (half + u) * 4, kStagedBytes);
            _tile_dpbf16ps(2, 5, 7);
            _tile_dpbf16ps(3, 5, 6);
        }
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + kTileBytes, 64);
    if constexpr (kBlocks == 2) _tile_stored(2, sums + 2 * kTileBytes, 64);
    if constexpr (kBlocks == 2) _tile_stored(3, sums + 3 * kTileBytes, 64);
}

inline void fold_halves(const TileJob& job, int64_t group, int64_t first, int64_t last) {
    for (int64_t at = first; at < last; at += kBlock) {
        const auto* sums = reinterpret_cast<const float*>(job.partial + group * kPartialStride + at * kLanes * 8);
        __m512 values[kBlock];
#pragma GCC unroll 16
        for (int t = 0; t < kBlock; ++t) {
            values[t] = _mm512_add_ps(_mm512_loadu_ps(sums + t * kLanes), _mm512_loadu_ps(sums + (kBlock + t) * kLanes));
        }
        fold(job, at, job.best + group * kLanes, values);
    }
}

void multiply_halves(const TileJob& job) {
    for (int64_t group = 0; group < job.groups; ++group) {
        int64_t first = 0, folded = 0;
        while (first < job.count) {
            const int64_t begun = first;
            if (first + kBlock < job.count) {
                multiply_halves_block<2>(job, group, first);
                first += 2 * kBlock;
            } else {
                multiply_halves_block<1>(job, group, first);
                first += kBlock;
            }
            if (job.last) fold_halves(job, group, folded, begun);
            folded = begun;
        }
        if (job.last) fold_halves(job, group, folded, first);
    }
}

void stage_halves(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    const int64_t lower = (dims + 31) / 32 * 64;
    const __m512i kept = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
    const auto mask = [](int64_t left) { return static_cast<__mmask16>(left >= 16 ? 0xFFFF : left > 0 ? (1 << left) - 1 : 0); };
    for (const Span* span = spans; span != spans + count; ++span) {
        for (int64_t t = 0; t < span->tokens; ++t, dst += kStagedBytes) {
            const auto* from = reinterpret_cast<const uint16_t*>(span->codes + t * token_bytes) + first;
            std::byte* to = dst;
            for (int64_t left = dims; left > 0; left -= 32, from += 32, to += 64) {
                const __m512 a = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(left), from));
                const __m512 b = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(left - 16), from + 16));
                const __m512i high_a = _mm512_and_si512(_mm512_castps_si512(a), kept);
                const __m512i high_b = _mm512_and_si512(_mm512_castps_si512(b), kept);
                const __m512i low_a = _mm512_castps_si512(_mm512_sub_ps(a, _mm512_castsi512_ps(high_a)));
                const __m512i low_b = _mm512_castps_si512(_mm512_sub_ps(b, _mm512_castsi512_ps(high_b)));
                _mm512_storeu_si512(to, _mm512_or_si512(_mm512_srli_epi32(high_a, 16), high_b));
                // The lower half of a sum's remainder is zero already: it has three significant bits.
                _mm512_storeu_si512(to + lower, _mm512_or_si512(_mm512_srli_epi32(low_a, 16), low_b));
            }
        }
    }
}

constexpr TileKernel halves_kernel{"amx halves",     Element::halves, Layout::quads,   false, false, 2 * kTileUnits,
                                   kMaxStagedTokens, stage_halves,    multiply_halves, enter, leave};

template <class Kind, int kItemBytes>
constexpr TileKernel kernel{"amx",
                            Kind::element,
                            Layout::quads,
                            false,
                            true,
                            kTileUnits,
                            kMaxStagedTokens,
                            stage<kItemBytes>,
                            multiply_tiles<Kind>,
                            enter,
                            leave,
                            40'000'000 / kItemBytes};

}  // namespace

const TileKernel* kernel_amx(Codec codec, int64_t lanes) {
    // Few lanes would leave most of a tile empty, and along the dimension no sum passes through memory.
    if (lanes <= kFewLanes && codec == Codec::int8) return kernel_avx512vnni(codec, lanes);
    if (lanes <= kFewLanes && codec == Codec::bfloat16) return kernel_avx512(codec, lanes);
    if (codec == Codec::int8) return &kernel<Bytes, 1>;
    if (codec == Codec::bfloat16) return &kernel<Pairs, 2>;
    // Splitting tokens costs more than it saves while one group is all that uses them.
    if (codec == Codec::float16) return lanes <= kLanes ? kernel_avx512(codec, lanes) : &halves_kernel;
    return nullptr;
}

}  // namespace metaindex
