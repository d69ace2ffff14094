// The register blocks of the AVX-512 kernels whose lanes multiply by themselves. Included by files compiled for different
// instruction sets, so nothing here may have external linkage. `Kind` has the instruction.
#pragma once

#include "avx512_fold.hpp"

namespace metaindex {
namespace {

inline void load(__m512& sum, const void* from) { sum = _mm512_loadu_ps(from); }
inline void load(__m512i& sum, const void* from) { sum = _mm512_loadu_si512(from); }
inline void store(void* to, __m512 sum) { _mm512_storeu_ps(to, sum); }
inline void store(void* to, __m512i sum) { _mm512_storeu_si512(to, sum); }

// Adds neighbouring numbers: those of `low` and `high`, which hold two partial sums per lane, become one vector of lanes.
inline __m512 add_halves(__m512 low, __m512 high) {
    return _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x88), _mm512_shuffle_ps(low, high, 0xDD));
}
inline __m512i add_halves(__m512i low, __m512i high) {
    const __m512 a = _mm512_castsi512_ps(low), b = _mm512_castsi512_ps(high);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                            _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD)));
}

// kTokens tokens times kVectors vectors, all sums in registers. Vector v lies at panel + v * panel_stride, its next unit
// unit_stride bytes on.
template <class Kind, int kTokens, int kVectors>
struct Block {
    typename Kind::Sum sums[kVectors][kTokens];

    void start(const int32_t* bias, int64_t bias_stride) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
            typename Kind::Sum sum{};
            if (bias) load(sum, bias + v * bias_stride);
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) sums[v][t] = sum;
        }
    }

    void resume(const std::byte* partial, int64_t stride) {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) load(sums[v][t], partial + v * stride + t * 64);
        }
    }

    void suspend(std::byte* partial, int64_t stride) const {
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) store(partial + v * stride + t * 64, sums[v][t]);
        }
    }

    template <int kUnitBytes>
    void multiply(const std::byte* panel, int64_t panel_stride, int64_t unit_stride, const std::byte* tokens, int64_t units,
                  Upcoming upcoming, int64_t lines) {
        constexpr int64_t kStep = 4;
        const int64_t portion = (lines * kStep + units - 1) / units;
        for (int64_t u = 0; u + kStep <= units; u += kStep) {
            upcoming.fetch(portion);
#pragma GCC unroll 1
            for (int64_t i = 0; i < kStep; ++i, tokens += kUnitBytes, panel += unit_stride) {
                multiply_unit<kUnitBytes>(panel, panel_stride, tokens);
            }
        }
        upcoming.fetch(lines);
        for (int64_t u = units / kStep * kStep; u < units; ++u, tokens += kUnitBytes, panel += unit_stride) {
            multiply_unit<kUnitBytes>(panel, panel_stride, tokens);
        }
    }

    template <int kUnitBytes>
    void multiply_unit(const std::byte* panel, int64_t panel_stride, const std::byte* tokens) {
        typename Kind::Query query[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) query[v] = Kind::query(panel + v * panel_stride);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
            const __m512i token = kUnitBytes == 8
                                      ? _mm512_set1_epi64(*reinterpret_cast<const int64_t*>(tokens + t * kStagedBytes))
                                      : _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(tokens + t * kStagedBytes));
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) sums[v][t] = Kind::step(sums[v][t], query[v], token);
        }
    }
};

// Layout `quads`: kGroups groups share each token that is broadcast.
template <class Kind, int kTokens, int kGroups>
inline void multiply_quads(const TileJob& job, int64_t group, int64_t first) {
    std::byte* partial = job.partial + group * kPartialStride + first * 64;
    Block<Kind, kTokens, kGroups> block;
    if (job.first) {
        block.start(job.bias ? job.bias + group * kLanes : nullptr, kLanes);
    } else {
        block.resume(partial, kPartialStride);
    }
    block.template multiply<4>(job.panel + group * job.panel_stride, job.panel_stride, 64, job.tokens + first * kStagedBytes,
                               job.units, Upcoming(job, group, first, kTokens), kTokens * job.next_lines);
    if (!job.last) {
        block.suspend(partial, kPartialStride);
        return;
    }
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
        __m512 values[kTokens];
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) values[t] = similarity(block.sums[g][t], job.scales + first + t);
        fold(job, first, job.best + (group + g) * kLanes, values);
    }
}

template <class Kind>
void multiply_quads(const TileJob& job) {
    int64_t group = 0;
    for (; group + 2 <= job.groups; group += 2) {
        for (int64_t first = 0; first < job.count; first += 8) multiply_quads<Kind, 8, 2>(job, group, first);
    }
    if (group < job.groups) {
        for (int64_t first = 0; first < job.count; first += 16) multiply_quads<Kind, 16, 1>(job, group, first);
    }
}

// Layout `pairs`.
template <class Kind>
void multiply_pairs(const TileJob& job) {
    constexpr int kTokens = 8;
    constexpr int64_t kHalf = kMaxStagedTokens * 64;
    for (int64_t group = 0; group < job.groups; ++group) {
        for (int64_t first = 0; first < job.count; first += kTokens) {
            std::byte* partial = job.partial + group * kPartialStride + first * 64;
            Block<Kind, kTokens, 2> block;
            if (job.first) {
                block.start(job.bias ? job.bias + group * 2 * kLanes : nullptr, kLanes);
            } else {
                block.resume(partial, kHalf);
            }
            block.template multiply<8>(job.panel + group * job.panel_stride, 64, 128, job.tokens + first * kStagedBytes,
                                       job.units, Upcoming(job, group, first, kTokens), kTokens * job.next_lines);
            if (!job.last) {
                block.suspend(partial, kHalf);
                continue;
            }
            __m512 values[kTokens];
#pragma GCC unroll 8
            for (int t = 0; t < kTokens; ++t) {
                values[t] = similarity(add_halves(block.sums[0][t], block.sums[1][t]), job.scales + first + t);
            }
            fold(job, first, job.best + group * kLanes, values);
        }
    }
}

}  // namespace
}  // namespace metaindex
