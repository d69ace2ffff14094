// AVX2, FMA and F16C: float32 arithmetic for the floating codecs, pairs of int16 products for int8.
#include <immintrin.h>

#include "tile.hpp"

namespace metaindex {
namespace {

inline constexpr int kTokens = 4;  // of a register block: with two vectors of lanes, eight sums under way

struct Floats {
    using Sum = __m256;
    static Sum load(const void* from) { return _mm256_loadu_ps(static_cast<const float*>(from)); }
    static void store(void* to, Sum sum) { _mm256_storeu_ps(static_cast<float*>(to), sum); }
    static Sum broadcast(const std::byte* token) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(token)); }
    static Sum step(Sum sum, Sum query, Sum token) { return _mm256_fmadd_ps(query, token, sum); }
    static __m256 similarity(Sum sum, const float*) { return sum; }
};

struct Shorts {
    using Sum = __m256i;
    static Sum load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
    static void store(void* to, Sum sum) { _mm256_storeu_si256(static_cast<__m256i*>(to), sum); }
    static Sum broadcast(const std::byte* token) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(token)); }
    static Sum step(Sum sum, Sum query, Sum token) { return _mm256_add_epi32(sum, _mm256_madd_epi16(query, token)); }
    static __m256 similarity(Sum sum, const float* scale) {
        return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(scale));
    }
};

inline void raise(float* best, __m256 value) { _mm256_storeu_ps(best, _mm256_max_ps(value, _mm256_loadu_ps(best))); }

template <class Kind>
inline void fold(const TileJob& job, int64_t first, float* best, const typename Kind::Sum (&sums)[kTokens][2]) {
    const int32_t* slots = job.slots + first;
    const bool same = slots[0] == slots[1] && slots[0] == slots[2] && slots[0] == slots[3];
    if (first + kTokens <= job.count && same) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            __m256 most = Kind::similarity(sums[0][half], job.scales + first);
#pragma GCC unroll 4
            for (int t = 1; t < kTokens; ++t)
                most = _mm256_max_ps(Kind::similarity(sums[t][half], job.scales + first + t), most);
            raise(best + slots[0] * job.best_stride + 8 * half, most);
        }
        return;
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
        if (first + t >= job.count) return;
        for (int half = 0; half < 2; ++half) {
            raise(best + slots[t] * job.best_stride + 8 * half, Kind::similarity(sums[t][half], job.scales + first + t));
        }
    }
}

template <class Kind>
inline void multiply_block(const TileJob& job, int64_t group, int64_t first) {
    const std::byte* panel = job.panel + group * job.panel_stride;
    std::byte* partial = job.partial + group * kPartialStride + first * kLanes * 4;
    Upcoming(job, group, first, kTokens).fetch(kTokens * job.next_lines);
    typename Kind::Sum sums[kTokens][2];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            sums[t][half] = job.first ? typename Kind::Sum{} : Kind::load(partial + t * kLanes * 4 + half * 32);
        }
    }
    const std::byte* tokens = job.tokens + first * kStagedBytes;
    for (int64_t u = 0; u < job.units; ++u, tokens += 4) {
        const auto low = Kind::load(panel + u * kLanes * 4);
        const auto high = Kind::load(panel + u * kLanes * 4 + 32);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
            const auto token = Kind::broadcast(tokens + t * kStagedBytes);
            sums[t][0] = Kind::step(sums[t][0], low, token);
            sums[t][1] = Kind::step(sums[t][1], high, token);
        }
    }
    if (job.last) {
        fold<Kind>(job, first, job.best + group * kLanes, sums);
        return;
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) Kind::store(partial + t * kLanes * 4 + half * 32, sums[t][half]);
    }
}

template <class Kind>
void multiply(const TileJob& job) {
    for (int64_t group = 0; group < job.groups; ++group) {
        for (int64_t first = 0; first < job.count; first += kTokens) multiply_block<Kind>(job, group, first);
    }
}

// Converters take whole vectors; what is left of a token goes through a zeroed copy.
template <class Code, int kNumbers, class Convert>
inline void stage_tokens(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst,
                         Convert convert) {
    for (const Span* span = spans; span != spans + count; ++span) {
        const std::byte* token = span->codes + first * static_cast<int64_t>(sizeof(Code));
        for (int64_t t = 0; t < span->tokens; ++t, token += token_bytes, dst += kStagedBytes) {
            const Code* codes = reinterpret_cast<const Code*>(token);
            int64_t i = 0;
            std::byte* to = dst;
            for (; i + kNumbers <= dims; i += kNumbers, to += 32) convert(to, codes + i);
            if (i == dims) continue;
            Code rest[kNumbers] = {};
            for (int64_t j = 0; i + j < dims; ++j) rest[j] = codes[i + j];
            convert(to, rest);
        }
    }
}

inline __m128i load128(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline void store256(std::byte* to, __m256i value) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value); }

void stage_float32(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<float, 8>(spans, count, token_bytes, first, dims, dst,
                           [](std::byte* to, const float* from) { Floats::store(to, Floats::load(from)); });
}

void stage_float16(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 8>(spans, count, token_bytes, first, dims, dst,
                              [](std::byte* to, const uint16_t* from) { Floats::store(to, _mm256_cvtph_ps(load128(from))); });
}

void stage_bfloat16(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 8>(spans, count, token_bytes, first, dims, dst, [](std::byte* to, const uint16_t* from) {
        store256(to, _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(from)), 16));
    });
}

void stage_int8(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<int8_t, 16>(spans, count, token_bytes, first, dims, dst,
                             [](std::byte* to, const int8_t* from) { store256(to, _mm256_cvtepi8_epi16(load128(from))); });
}

constexpr TileKernel with_floats(decltype(TileKernel::stage) stage) {
    return {"avx2", Element::float32, Layout::quads, false, false, 1, 2 * kBlock, stage, multiply<Floats>, nullptr, nullptr};
}

constexpr TileKernel kFloat32 = with_floats(stage_float32);
constexpr TileKernel kFloat16 = with_floats(stage_float16);
constexpr TileKernel kBFloat16 = with_floats(stage_bfloat16);
constexpr TileKernel kInt8{"avx2",     Element::int16, Layout::quads,    false,   false,  1,
                           2 * kBlock, stage_int8,     multiply<Shorts>, nullptr, nullptr};

}  // namespace

const TileKernel* kernel_avx2(Codec codec, int64_t) {
    switch (codec) {
        case Codec::float32: return &kFloat32;
        case Codec::float16: return &kFloat16;
        case Codec::bfloat16: return &kBFloat16;
        case Codec::int8: return &kInt8;
    }
    return nullptr;
}

}  // namespace metaindex
