// AVX-512 BF16: two bfloat16 products per lane and instruction, summed in float32.
#include "avx512_rows.hpp"
#include "avx512_tile.hpp"

namespace metaindex {
namespace {

struct Pairs {
    using Sum = __m512;
    using Query = __m512bh;
    static Query query(const std::byte* from) { return reinterpret_cast<Query>(_mm512_loadu_si512(from)); }
    static Sum step(Sum sum, Query query, __m512i token) {
        return _mm512_dpbf16_ps(sum, query, reinterpret_cast<__m512bh>(token));
    }
};

void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 32>(spans, count, token_bytes, first, dims, dst,
                               [](std::byte* to, const uint16_t* from, uint64_t mask) {
                                   _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from));
                               });
}

struct PairRows {
    using Sum = __m512;
    static constexpr int kNumbers = 32;
    static constexpr int kCodeBytes = 64;
    static constexpr bool kBiased = false;
    static __m512i load(const std::byte* from, uint64_t mask = ~uint64_t{0}) {
        return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from);
    }
    static Sum step(Sum sum, __m512i query, __m512i token) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(query), reinterpret_cast<__m512bh>(token));
    }
};

constexpr TileKernel kRows{"avx512bf16 rows",    Element::bfloat16,       Layout::rows, false,  true, 16, kMaxStagedTokens,
                           stage_rows<uint16_t>, multiply_rows<PairRows>, nullptr,      nullptr};
constexpr TileKernel kQuads{"avx512bf16 quads",    Element::bfloat16, Layout::quads, false, false, 1, 2 * kBlock, stage,
                            multiply_quads<Pairs>, nullptr,           nullptr};
constexpr TileKernel kPairs{"avx512bf16 pairs",    Element::bfloat16, Layout::pairs, false, false, 1, 2 * kBlock, stage,
                            multiply_pairs<Pairs>, nullptr,           nullptr};

}  // namespace

const TileKernel* kernel_avx512bf16(Codec codec, int64_t lanes) {
    if (codec != Codec::bfloat16) return nullptr;
    if (lanes <= kFewLanes) return &kRows;
    return lanes <= kLanes ? &kPairs : &kQuads;
}

}  // namespace metaindex
