// Staging and folding with AVX-512 registers. Included by files compiled for different instruction sets, so nothing here may
// have external linkage.
#pragma once

#include <immintrin.h>

#include "tile.hpp"

namespace metaindex {
namespace {

inline __m512 similarity(__m512 sum, const float*) { return sum; }
inline __m512 similarity(__m512i sum, const float* scale) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(*scale));
}

inline void raise(float* best, __m512 value) { _mm512_storeu_ps(best, _mm512_max_ps(value, _mm512_loadu_ps(best))); }

// Whether kTokens neighbouring tokens belong to one document.
template <int kTokens>
inline bool same_document(const int32_t* slots) {
    const __m512i all = _mm512_set1_epi32(slots[0]);
    constexpr auto mask = static_cast<__mmask16>((1u << kTokens) - 1);
    return _mm512_mask_cmpneq_epi32_mask(mask, all, _mm512_maskz_loadu_epi32(mask, slots)) == 0;
}

// Folds the similarities of kTokens tokens, from token `first` of the job on, into the running maxima at `best`.
template <int kTokens>
inline void fold(const TileJob& job, int64_t first, float* best, __m512 (&values)[kTokens]) {
    const int32_t* slots = job.slots + first;
    if (first + kTokens <= job.count && same_document<kTokens>(slots)) {
#pragma GCC unroll 4
        for (int half = kTokens / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
            for (int t = 0; t < half; ++t) values[t] = _mm512_max_ps(values[t], values[t + half]);
        }
        raise(best + slots[0] * job.best_stride, values[0]);
        return;
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
        if (first + t < job.count) raise(best + slots[t] * job.best_stride, values[t]);
    }
}

// Calls convert(to, codes, mask) for kNumbers codes at a time, which become 64 staged bytes; the mask has a bit for each code.
template <class Code, int kNumbers, class Convert>
inline void stage_tokens(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst,
                         Convert convert) {
    constexpr uint64_t kAll = ~uint64_t{0};
    const int64_t rest = dims % kNumbers;
    const uint64_t tail = (uint64_t{1} << rest) - 1;
    for (const Span* span = spans; span != spans + count; ++span) {
        const std::byte* token = span->codes + first * static_cast<int64_t>(sizeof(Code));
        for (int64_t t = 0; t < span->tokens; ++t, token += token_bytes, dst += kStagedBytes) {
            const Code* codes = reinterpret_cast<const Code*>(token);
            std::byte* to = dst;
            int64_t left = dims / kNumbers;
            for (; left >= 4; left -= 4, codes += 4 * kNumbers, to += 256) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) convert(to + i * 64, codes + i * kNumbers, kAll);
            }
            for (; left > 0; --left, codes += kNumbers, to += 64) convert(to, codes, kAll);
            if (rest) convert(to, codes, tail);
        }
    }
}

}  // namespace
}  // namespace metaindex
