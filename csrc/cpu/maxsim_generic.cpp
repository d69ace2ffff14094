// The compiler's own vectors of 16 bytes: NEON on arm64, SSE2 on x86-64, and whatever else a processor has.
#include "numbers.hpp"
#include "tile.hpp"

namespace metaindex {
namespace {

using Float4 __attribute__((vector_size(16))) = float;
using Int4 __attribute__((vector_size(16))) = int32_t;

inline constexpr int kTokens = 4;   // of a register block
inline constexpr int kVectors = 4;  // that hold 16 lanes

inline Float4 similarity(Float4 sum, const float*) { return sum; }
inline Float4 similarity(Int4 sum, const float* scale) { return __builtin_convertvector(sum, Float4) * *scale; }

// Scalar is float or int32_t: one number per unit.
template <class Scalar, class Vector>
void multiply_block(const TileJob& job, int64_t group, int64_t first) {
    const auto* panel = reinterpret_cast<const Vector*>(job.panel + group * job.panel_stride);
    auto* partial = reinterpret_cast<Vector*>(job.partial + group * kPartialStride) + first * kVectors;
    const std::byte* tokens = job.tokens + first * job.token_stride;
    Upcoming(job, group, first, kTokens).fetch(kTokens * job.next_lines);
    Vector sums[kTokens][kVectors];
    for (int t = 0; t < kTokens; ++t) {
        for (int v = 0; v < kVectors; ++v) sums[t][v] = job.first ? Vector{} : partial[t * kVectors + v];
    }
    for (int64_t u = 0; u < job.units; ++u) {
        for (int t = 0; t < kTokens; ++t) {
            const Scalar number = reinterpret_cast<const Scalar*>(tokens + t * job.token_stride)[u];
            for (int v = 0; v < kVectors; ++v) sums[t][v] += panel[u * kVectors + v] * number;
        }
    }
    for (int t = 0; t < kTokens; ++t) {
        if (!job.last) {
            for (int v = 0; v < kVectors; ++v) partial[t * kVectors + v] = sums[t][v];
        } else if (first + t < job.count) {
            auto* best = reinterpret_cast<Float4*>(job.best + job.slots[first + t] * job.best_stride + group * kLanes);
            for (int v = 0; v < kVectors; ++v) {
                const Float4 value = similarity(sums[t][v], job.scales + first + t);
                best[v] = value > best[v] ? value : best[v];
            }
        }
    }
}

template <class Scalar, class Vector>
void multiply(const TileJob& job) {
    for (int64_t group = 0; group < job.groups; ++group) {
        for (int64_t first = 0; first < job.count; first += kTokens) multiply_block<Scalar, Vector>(job, group, first);
    }
}

inline float decoded(const float* codes, int64_t i, Codec) { return codes[i]; }
inline int32_t decoded(const int8_t* codes, int64_t i, Codec) { return codes[i]; }
inline float decoded(const uint16_t* codes, int64_t i, Codec codec) {
    return codec == Codec::float16 ? from_float16(codes[i]) : from_bfloat16(codes[i]);
}

template <Codec codec, class Code, class Scalar>
void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    for (const Span* span = spans; span != spans + count; ++span) {
        for (int64_t t = 0; t < span->tokens; ++t, dst += kStagedBytes) {
            const Code* codes = reinterpret_cast<const Code*>(span->codes + t * token_bytes) + first;
            for (int64_t i = 0; i < dims; ++i) reinterpret_cast<Scalar*>(dst)[i] = decoded(codes, i, codec);
        }
    }
}

template <Codec codec, class Code>
constexpr TileKernel floats{"generic",  Element::float32,          Layout::quads,           false,   false,  1,
                            2 * kBlock, stage<codec, Code, float>, multiply<float, Float4>, nullptr, nullptr};
constexpr TileKernel integers{"generic",
                              Element::int32,
                              Layout::quads,
                              false,
                              false,
                              1,
                              2 * kBlock,
                              stage<Codec::int8, int8_t, int32_t>,
                              multiply<int32_t, Int4>,
                              nullptr,
                              nullptr};

}  // namespace

const TileKernel* kernel_generic(Codec codec, int64_t) {
    switch (codec) {
        case Codec::float32: return &floats<Codec::float32, float>;
        case Codec::float16: return &floats<Codec::float16, uint16_t>;
        case Codec::bfloat16: return &floats<Codec::bfloat16, uint16_t>;
        case Codec::int8: return &integers;
    }
    return nullptr;
}

}  // namespace metaindex
