// AVX-512 F, BW and VL: float32 arithmetic for the floating codecs, pairs of int16 products for int8.
#include "avx512_rows.hpp"
#include "avx512_tile.hpp"

namespace metaindex {
namespace {

struct Floats {
    using Sum = __m512;
    using Query = __m512;
    static Query query(const std::byte* from) { return _mm512_loadu_ps(from); }
    static Sum step(Sum sum, Query query, __m512i token) { return _mm512_fmadd_ps(query, _mm512_castsi512_ps(token), sum); }
};

struct Shorts {
    using Sum = __m512i;
    using Query = __m512i;
    static Query query(const std::byte* from) { return _mm512_loadu_si512(from); }
    static Sum step(Sum sum, Query query, __m512i token) { return _mm512_add_epi32(sum, _mm512_madd_epi16(query, token)); }
};

void stage_float32(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<float, 16>(spans, count, token_bytes, first, dims, dst, [](std::byte* to, const float* from, uint64_t mask) {
        _mm512_storeu_ps(to, _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from));
    });
}

void stage_float16(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 16>(spans, count, token_bytes, first, dims, dst,
                               [](std::byte* to, const uint16_t* from, uint64_t mask) {
                                   const __m256i codes = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), from);
                                   _mm512_storeu_ps(to, _mm512_cvtph_ps(codes));
                               });
}

void stage_bfloat16(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 16>(spans, count, token_bytes, first, dims, dst,
                               [](std::byte* to, const uint16_t* from, uint64_t mask) {
                                   const __m256i codes = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), from);
                                   _mm512_storeu_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(codes), 16));
                               });
}

void stage_int8(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<int8_t, 32>(spans, count, token_bytes, first, dims, dst, [](std::byte* to, const int8_t* from, uint64_t mask) {
        const __m256i codes = _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), from);
        _mm512_storeu_si512(to, _mm512_cvtepi8_epi16(codes));
    });
}

template <Codec codec>
struct FloatRows {
    using Sum = __m512;
    static constexpr int kNumbers = 16;
    static constexpr int kCodeBytes = 16 * itemsize(codec);
    static constexpr bool kBiased = false;
    static __m512i load(const std::byte* from, uint64_t mask = 0xFFFF) {
        const auto numbers = static_cast<__mmask16>(mask);
        if constexpr (codec == Codec::float32) return _mm512_maskz_loadu_epi32(numbers, from);
        const __m256i codes = _mm256_maskz_loadu_epi16(numbers, from);
        if constexpr (codec == Codec::float16) return _mm512_castps_si512(_mm512_cvtph_ps(codes));
        return _mm512_slli_epi32(_mm512_cvtepu16_epi32(codes), 16);
    }
    static Sum step(Sum sum, __m512i query, __m512i token) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(query), _mm512_castsi512_ps(token), sum);
    }
};

struct ShortRows {
    using Sum = __m512i;
    static constexpr int kNumbers = 32;
    static constexpr int kCodeBytes = 32;
    static constexpr bool kBiased = false;
    static __m512i load(const std::byte* from, uint64_t mask = 0xFFFFFFFF) {
        return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), from));
    }
    static Sum step(Sum sum, __m512i query, __m512i token) { return _mm512_add_epi32(sum, _mm512_madd_epi16(query, token)); }
};

template <class Code, class Kind>
constexpr TileKernel rows(Element element) {
    return {"avx512 rows",    element,          Layout::rows,        false,   true,   16,
            kMaxStagedTokens, stage_rows<Code>, multiply_rows<Kind>, nullptr, nullptr};
}

template <class Kind>
constexpr TileKernel quads(Element element, Stage stage) {
    return {"avx512 quads", element, Layout::quads, false, false, 1, 2 * kBlock, stage, multiply_quads<Kind>, nullptr, nullptr};
}

template <class Kind>
constexpr TileKernel pairs(Element element, Stage stage) {
    return {"avx512 pairs", element, Layout::pairs, false, false, 1, 2 * kBlock, stage, multiply_pairs<Kind>, nullptr, nullptr};
}

// By codec, and whether there is one group only.
constexpr TileKernel kKernels[4][2] = {
    {quads<Floats>(Element::float32, stage_float32), pairs<Floats>(Element::float32, stage_float32)},
    {quads<Floats>(Element::float32, stage_float16), pairs<Floats>(Element::float32, stage_float16)},
    {quads<Floats>(Element::float32, stage_bfloat16), pairs<Floats>(Element::float32, stage_bfloat16)},
    {quads<Shorts>(Element::int16, stage_int8), pairs<Shorts>(Element::int16, stage_int8)}};

constexpr TileKernel kRows[4] = {
    rows<float, FloatRows<Codec::float32>>(Element::float32), rows<uint16_t, FloatRows<Codec::float16>>(Element::float32),
    rows<uint16_t, FloatRows<Codec::bfloat16>>(Element::float32), rows<int8_t, ShortRows>(Element::int16)};

}  // namespace

const TileKernel* kernel_avx512(Codec codec, int64_t lanes) {
    const auto row = static_cast<int>(codec);
    return lanes <= kFewLanes ? &kRows[row] : &kKernels[row][lanes <= kLanes];
}

}  // namespace metaindex
