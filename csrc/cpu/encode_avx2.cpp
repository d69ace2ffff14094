#include <immintrin.h>

#include "encode_rows.hpp"

namespace metaindex {
namespace {

inline constexpr int64_t kNumbers = 8;

// Calls convert(codes, token) for eight numbers at a time; what is left of the token goes through copies.
template <class Code, class Convert>
inline void each(const float* token, int64_t dim, Code* codes, Convert convert) {
    int64_t i = 0;
    for (; i + kNumbers <= dim; i += kNumbers) convert(codes + i, _mm256_loadu_ps(token + i));
    if (i == dim) return;
    float rest[kNumbers] = {};
    Code packed[kNumbers];
    for (int64_t j = 0; i + j < dim; ++j) rest[j] = token[i + j];
    convert(packed, _mm256_loadu_ps(rest));
    for (int64_t j = 0; i + j < dim; ++j) codes[i + j] = packed[j];
}

// Eight int32 within the bounds of uint16, as uint16.
inline __m128i narrow(__m256i values) {
    return _mm_packus_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
}

void float16(const float* token, int64_t dim, uint16_t* codes) {
    each(token, dim, codes, [](uint16_t* to, __m256 numbers) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT));
    });
}

void bfloat16(const float* token, int64_t dim, uint16_t* codes) {
    each(token, dim, codes, [](uint16_t* to, __m256 numbers) {
        const __m256i bits = _mm256_castps_si256(numbers);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow(_mm256_srli_epi32(rounded, 16)));
    });
}

float largest(const float* token, int64_t dim) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    __m256 most = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + kNumbers <= dim; i += kNumbers) {
        most = _mm256_max_ps(most, _mm256_and_ps(_mm256_loadu_ps(token + i), magnitude));
    }
    float lanes[kNumbers];
    _mm256_storeu_ps(lanes, most);
    float found = 0;
    for (const float lane : lanes) found = lane > found ? lane : found;
    for (; i < dim; ++i) {
        const float size = token[i] < 0 ? -token[i] : token[i];
        found = size > found ? size : found;
    }
    return found;
}

float int8(const float* token, int64_t dim, int8_t* codes) {
    const float scale = largest(token, dim) / 127.0f;
    if (scale == 0) {
        for (int64_t i = 0; i < dim; ++i) codes[i] = 0;
        return scale;
    }
    const __m256 divisor = _mm256_set1_ps(scale), limit = _mm256_set1_ps(127.0f), lowest = _mm256_set1_ps(-127.0f);
    each(token, dim, codes, [&](int8_t* to, __m256 numbers) {
        const __m256 clipped = _mm256_min_ps(_mm256_max_ps(_mm256_div_ps(numbers, divisor), lowest), limit);
        const __m256i values = _mm256_cvtps_epi32(clipped);  // rounds to nearest even
        const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(shorts, shorts));
    });
    return scale;
}

}  // namespace

extern const RowEncoders kEncodersAvx2{float16, bfloat16, int8};

}  // namespace metaindex
