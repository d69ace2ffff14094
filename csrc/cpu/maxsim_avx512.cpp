// AVX-512 F, BW and VL: float32 arithmetic for the floating codecs, pairs of int16 products for int8.
#include "avx512_tile.hpp"

namespace metaindex {
namespace {

struct Floats {
    using Sum = __m512;
    using Query = __m512;
    static Query query(const std::byte* from) { return _mm512_loadu_ps(from); }
    static __m512 broadcast(const std::byte* token) { return _mm512_set1_ps(*reinterpret_cast<const float*>(token)); }
    static Sum step(Sum sum, Query query, __m512 token) { return _mm512_fmadd_ps(query, token, sum); }
};

struct Shorts {
    using Sum = __m512i;
    using Query = __m512i;
    static Query query(const std::byte* from) { return _mm512_loadu_si512(from); }
    static __m512i broadcast(const std::byte* token) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(token)); }
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

constexpr TileKernel with_floats(decltype(TileKernel::stage) stage) {
    return {"avx512", Element::float32, Layout::lanes, false, false, 1, 2 * kBlock, stage, multiply<Floats>, nullptr, nullptr};
}

constexpr TileKernel kFloat32 = with_floats(stage_float32);
constexpr TileKernel kFloat16 = with_floats(stage_float16);
constexpr TileKernel kBFloat16 = with_floats(stage_bfloat16);
constexpr TileKernel kInt8{"avx512",   Element::int16, Layout::lanes,    false,   false,  1,
                           2 * kBlock, stage_int8,     multiply<Shorts>, nullptr, nullptr};

}  // namespace

const TileKernel* kernel_avx512(Codec codec, int64_t) {
    switch (codec) {
        case Codec::float32: return &kFloat32;
        case Codec::float16: return &kFloat16;
        case Codec::bfloat16: return &kBFloat16;
        case Codec::int8: return &kInt8;
    }
    return nullptr;
}

}  // namespace metaindex
