// The register block of every AVX-512 kernel. Included by files compiled for different instruction sets, so nothing here may
// have external linkage.
#pragma once

#include <immintrin.h>

#include "tile.hpp"

namespace metaindex {
namespace {

inline constexpr int64_t kPartialStride = kMaxStagedTokens * kLanes * 4;  // bytes of accumulators between groups

inline __m512 similarity(__m512 sum, const float*) { return sum; }
inline __m512 similarity(__m512i sum, const float* scale) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(*scale));
}

inline void load(__m512& sum, const void* from) { sum = _mm512_loadu_ps(from); }
inline void load(__m512i& sum, const void* from) { sum = _mm512_loadu_si512(from); }
inline void store(void* to, __m512 sum) { _mm512_storeu_ps(to, sum); }
inline void store(void* to, __m512i sum) { _mm512_storeu_si512(to, sum); }

inline void raise(float* best, __m512 value) { _mm512_storeu_ps(best, _mm512_max_ps(value, _mm512_loadu_ps(best))); }

// Folds the similarities of kTokens tokens, from token `first` of the job on, into the running maxima at `best`.
template <int kTokens>
inline void fold(const TileJob& job, int64_t first, float* best, __m512 (&values)[kTokens]) {
    const int32_t* slots = job.slots + first;
    if (first + kTokens <= job.count && slots[0] == slots[kTokens - 1]) {
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

// kTokens tokens against kGroups panels, all accumulators in registers. `Kind` has the instruction.
template <class Kind, int kTokens, int kGroups>
inline void multiply_block(const TileJob& job, int64_t group, int64_t first) {
    using Sum = typename Kind::Sum;
    const std::byte* panel[kGroups];
    Sum sums[kGroups][kTokens];
    std::byte* partial[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
        panel[g] = job.panel + (group + g) * job.panel_stride;
        partial[g] = job.partial + (group + g) * kPartialStride + first * kLanes * 4;
        Sum start{};
        if (job.bias) load(start, job.bias + (group + g) * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
            if (job.first) {
                sums[g][t] = start;
            } else {
                load(sums[g][t], partial[g] + t * kLanes * 4);
            }
        }
    }
    const std::byte* tokens = job.tokens + first * kStagedBytes;
    for (int64_t u = 0; u < job.units; ++u, tokens += kUnitBytes) {
        typename Kind::Query query[kGroups];
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) query[g] = Kind::query(panel[g] + u * kLanes * kUnitBytes);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
            const auto token = Kind::broadcast(tokens + t * kStagedBytes);
#pragma GCC unroll 2
            for (int g = 0; g < kGroups; ++g) sums[g][t] = Kind::step(sums[g][t], query[g], token);
        }
    }
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
        if (job.last) {
            __m512 values[kTokens];
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) values[t] = similarity(sums[g][t], job.scales + first + t);
            fold(job, first, job.best + (group + g) * kLanes, values);
        } else {
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) store(partial[g] + t * kLanes * 4, sums[g][t]);
        }
    }
}

// Two panels share each broadcast token; a single one takes twice the tokens, so that as many sums are under way.
template <class Kind>
void multiply(const TileJob& job) {
    int64_t group = 0;
    for (; group + 2 <= job.groups; group += 2) {
        for (int64_t first = 0; first < job.count; first += 8) multiply_block<Kind, 8, 2>(job, group, first);
    }
    if (group < job.groups) {
        for (int64_t first = 0; first < job.count; first += 16) multiply_block<Kind, 16, 1>(job, group, first);
    }
}

// Calls convert(dst, src, mask, numbers) for runs of at most 16 * kUnitDims numbers, with a mask that has a bit for each.
template <class Code, int kNumbers, class Convert>
inline void stage_tokens(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst,
                         Convert convert) {
    const uint64_t tail = (uint64_t{1} << (dims % kNumbers)) - 1;
    for (const Span* span = spans; span != spans + count; ++span) {
        const std::byte* token = span->codes + first * static_cast<int64_t>(sizeof(Code));
        for (int64_t t = 0; t < span->tokens; ++t, token += token_bytes, dst += kStagedBytes) {
            const Code* codes = reinterpret_cast<const Code*>(token);
            int64_t i = 0;
            std::byte* to = dst;
            for (; i + kNumbers <= dims; i += kNumbers, to += 64) convert(to, codes + i, ~uint64_t{0});
            if (tail) convert(to, codes + i, tail);
        }
    }
}

}  // namespace
}  // namespace metaindex
