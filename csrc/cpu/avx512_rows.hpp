// The AVX-512 kernels for few lanes: each lane goes along the dimension of 16 tokens at once, and the 16 sums become one vector
// of similarities. Included by files compiled for different instruction sets, so nothing here may have external linkage.
// `Kind` has the instruction.
#pragma once

#include "avx512_fold.hpp"

namespace metaindex {
namespace {

inline __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
inline __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

inline __m512i bits(__m512 sums) { return _mm512_castps_si512(sums); }
inline __m512i bits(__m512i sums) { return sums; }
inline void assign(__m512& to, __m512i bits) { to = _mm512_castsi512_ps(bits); }
inline void assign(__m512i& to, __m512i bits) { to = bits; }

// Number t of the result is the sum over the numbers of sums[t]: each step adds the halves of two vectors into one.
template <class Sum>
inline Sum add_across(Sum (&sums)[16]) {
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {
#pragma GCC unroll 8
        for (int i = 0; i < 8 >> step; ++i) {
            const __m512i a = bits(sums[2 * i]), b = bits(sums[2 * i + 1]);
            Sum low, high;
            assign(low, step == 0   ? _mm512_unpacklo_epi32(a, b)
                        : step == 1 ? _mm512_unpacklo_epi64(a, b)
                                    : _mm512_shuffle_i32x4(a, b, 0x88));
            assign(high, step == 0   ? _mm512_unpackhi_epi32(a, b)
                         : step == 1 ? _mm512_unpackhi_epi64(a, b)
                                     : _mm512_shuffle_i32x4(a, b, 0xDD));
            sums[i] = add(low, high);
        }
    }
    return sums[0];
}

inline __m512 similarities(__m512 sums, const float*) { return sums; }
inline __m512 similarities(__m512i sums, const float* scales) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scales));
}

// How 16 neighbouring tokens belong to documents: 1 << shift tokens to each of as many neighbouring documents, or irregularly.
inline constexpr int kIrregular = -1;

inline int run_shift(const int32_t* slots) {
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offsets = _mm512_sub_epi32(_mm512_loadu_si512(slots), _mm512_set1_epi32(slots[0]));
    for (int shift = 0; shift <= 4; ++shift) {
        const __m512i regular = _mm512_srl_epi32(places, _mm_cvtsi32_si128(shift));
        if (_mm512_cmpneq_epi32_mask(offsets, regular) == 0) return shift;
    }
    return kIrregular;
}

// Folds one lane's similarities of the first `count` of 16 tokens into its running maxima.
inline void fold_row(float* best, const int32_t* slots, int shift, int64_t count, __m512 values) {
    if (shift == kIrregular) {
        alignas(64) float each[16];
        _mm512_store_ps(each, values);
        for (int64_t t = 0; t < count; ++t) {
            if (each[t] > best[slots[t]]) best[slots[t]] = each[t];
        }
        return;
    }
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int i = 0; i < shift; ++i) {
        const __m512i partners = _mm512_xor_si512(places, _mm512_set1_epi32(1 << i));
        values = _mm512_max_ps(values, _mm512_permutexvar_ps(partners, values));
    }
    constexpr __mmask16 kFirstOfRun[] = {0xFFFF, 0x5555, 0x1111, 0x0101, 0x0001};
    const auto documents = static_cast<__mmask16>((1u << (16 >> shift)) - 1);
    values = _mm512_maskz_compress_ps(kFirstOfRun[shift], values);
    best += slots[0];
    _mm512_mask_storeu_ps(best, documents, _mm512_max_ps(values, _mm512_maskz_loadu_ps(documents, best)));
}

// The sums of 16 tokens with one lane; `row` is the lane's chunk. Prefetches go with the vectors they are spread over.
template <class Kind>
inline typename Kind::Sum multiply_row(const TileJob& job, const std::byte* row, const std::byte* tokens, Upcoming& upcoming,
                                       int64_t portion) {
    typename Kind::Sum sums[16] = {};
    const int64_t stride = job.token_stride;
    int64_t left = job.dims;
    for (; left >= Kind::kNumbers; left -= Kind::kNumbers, row += 64, tokens += Kind::kCodeBytes) {
        upcoming.fetch(portion);
        const __m512i query = _mm512_loadu_si512(row);
#pragma GCC unroll 16
        for (int t = 0; t < 16; ++t) sums[t] = Kind::step(sums[t], query, Kind::load(tokens + t * stride));
    }
    if (left) {
        const uint64_t rest = (uint64_t{1} << left) - 1;
        const __m512i query = _mm512_loadu_si512(row);
#pragma GCC unroll 16
        for (int t = 0; t < 16; ++t) sums[t] = Kind::step(sums[t], query, Kind::load(tokens + t * stride, rest));
    }
    return add_across(sums);
}

template <class Kind>
void multiply_rows(const TileJob& job) {
    using Sum = typename Kind::Sum;
    const int64_t vectors = (job.dims + Kind::kNumbers - 1) / Kind::kNumbers;
    const int64_t portion = (kBlock * job.next_lines + vectors - 1) / vectors;
    for (int64_t first = 0; first < job.count; first += kBlock) {
        const std::byte* tokens = job.tokens + first * job.token_stride;
        const int64_t count = job.count - first < kBlock ? job.count - first : kBlock;
        const int shift = count == kBlock ? run_shift(job.slots + first) : kIrregular;
        Upcoming upcoming(job, 0, first, kBlock);
        for (int64_t lane = 0; lane < job.lanes; ++lane) {
            Sum sum = multiply_row<Kind>(job, job.panel + lane * job.units * 4, tokens, upcoming, portion);
            std::byte* partial = job.partial + (lane * kMaxStagedTokens + first) * 4;
            if (!job.first) {
                Sum before;
                assign(before, _mm512_loadu_si512(partial));
                sum = add(sum, before);
            } else if constexpr (Kind::kBiased) {
                sum = add(sum, _mm512_set1_epi32(job.bias[lane]));
            }
            if (!job.last) {
                _mm512_storeu_si512(partial, bits(sum));
            } else {
                fold_row(job.best + lane * job.best_stride, job.slots + first, shift, count,
                         similarities(sum, job.scales + first));
            }
        }
        upcoming.fetch(kBlock * job.next_lines);
    }
}

// Tokens that can't be read in place are copied as they are: kernels convert codes when they load them.
template <class Code>
void stage_rows(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<Code, 64 / sizeof(Code)>(spans, count, token_bytes, first, dims, dst,
                                          [](std::byte* to, const Code* from, uint64_t mask) {
                                              __m512i codes;
                                              if constexpr (sizeof(Code) == 1) {
                                                  codes = _mm512_maskz_loadu_epi8(mask, from);
                                              } else if constexpr (sizeof(Code) == 2) {
                                                  codes = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from);
                                              } else {
                                                  codes = _mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), from);
                                              }
                                              _mm512_storeu_si512(to, codes);
                                          });
}

}  // namespace
}  // namespace metaindex
