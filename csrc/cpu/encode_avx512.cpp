#include <immintrin.h>

#include "encode_rows.hpp"

namespace metaindex {
namespace {

inline constexpr int64_t kNumbers = 16;

// Calls convert(i, numbers, mask) for sixteen numbers at a time.
template <class Convert>
inline void each(const float* token, int64_t dim, Convert convert) {
    int64_t i = 0;
    for (; i + kNumbers <= dim; i += kNumbers) convert(i, _mm512_loadu_ps(token + i), static_cast<__mmask16>(0xFFFF));
    if (i == dim) return;
    const auto mask = static_cast<__mmask16>((1u << (dim - i)) - 1);
    convert(i, _mm512_maskz_loadu_ps(mask, token + i), mask);
}

void float16(const float* token, int64_t dim, uint16_t* codes) {
    each(token, dim, [codes](int64_t i, __m512 numbers, __mmask16 mask) {
        _mm256_mask_storeu_epi16(codes + i, mask, _mm512_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT));
    });
}

void bfloat16(const float* token, int64_t dim, uint16_t* codes) {
    each(token, dim, [codes](int64_t i, __m512 numbers, __mmask16 mask) {
        const __m512i bits = _mm512_castps_si512(numbers);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
        _mm256_mask_storeu_epi16(codes + i, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    });
}

float int8(const float* token, int64_t dim, int8_t* codes) {
    __m512 most = _mm512_setzero_ps();
    each(token, dim, [&most](int64_t, __m512 numbers, __mmask16) { most = _mm512_max_ps(most, _mm512_abs_ps(numbers)); });
    const float scale = _mm512_reduce_max_ps(most) / 127.0f;
    // Where the scale is zero, dividing by one and masking all lanes off leaves zeros.
    const auto kept = static_cast<__mmask16>(scale > 0 ? 0xFFFF : 0);
    const __m512 divisor = _mm512_set1_ps(scale > 0 ? scale : 1.0f);
    const __m512 limit = _mm512_set1_ps(127.0f), lowest = _mm512_set1_ps(-127.0f);
    each(token, dim, [&](int64_t i, __m512 numbers, __mmask16 mask) {
        const __m512 clipped = _mm512_min_ps(_mm512_max_ps(_mm512_div_ps(numbers, divisor), lowest), limit);
        const __m512i values = _mm512_maskz_cvtps_epi32(kept, clipped);  // rounds to nearest even
        _mm_mask_storeu_epi8(codes + i, mask, _mm512_cvtepi32_epi8(values));
    });
    return scale;
}

}  // namespace

extern const RowEncoders kEncodersAvx512{float16, bfloat16, int8};

}  // namespace metaindex
