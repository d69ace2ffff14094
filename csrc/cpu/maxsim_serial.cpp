// The plain truth: one multiplication after the other. Every other kernel is held to it.
#include "numbers.hpp"
#include "tile.hpp"

namespace metaindex {
namespace {

struct Floats {
    using Accumulator = float;
    static constexpr Element element = Element::float32;
    static float similarity(float sum, float) { return sum; }
    static float unit(const std::byte* query, const std::byte* token) {
        return *reinterpret_cast<const float*>(query) * *reinterpret_cast<const float*>(token);
    }
};

struct Bytes {
    using Accumulator = int32_t;
    static constexpr Element element = Element::int8;
    static float similarity(int32_t sum, float scale) { return static_cast<float>(sum) * scale; }
    static int32_t unit(const std::byte* query, const std::byte* token) {
        const auto* q = reinterpret_cast<const int8_t*>(query);
        const auto* t = reinterpret_cast<const int8_t*>(token);
        return q[0] * t[0] + q[1] * t[1] + q[2] * t[2] + q[3] * t[3];
    }
};

template <class Kind>
void multiply(const TileJob& job) {
    using Accumulator = typename Kind::Accumulator;
    for (int64_t group = 0; group < job.groups; ++group) {
        const std::byte* panel = job.panel + group * job.panel_stride;
        auto* partial = reinterpret_cast<Accumulator*>(job.partial + group * kPartialStride);
        for (int64_t t = 0; t < job.count; ++t) {
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                Accumulator sum = job.first ? 0 : partial[t * kLanes + lane];
                for (int64_t u = 0; u < job.units; ++u) {
                    sum += Kind::unit(panel + (u * kLanes + lane) * 4, job.tokens + t * job.token_stride + u * 4);
                }
                partial[t * kLanes + lane] = sum;
                if (!job.last) continue;
                const float similarity = Kind::similarity(sum, job.scales[t]);
                float& best = job.best[job.slots[t] * job.best_stride + group * kLanes + lane];
                if (similarity > best) best = similarity;
            }
        }
    }
}

template <Codec codec>
void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    for (const Span* span = spans; span != spans + count; ++span) {
        for (int64_t t = 0; t < span->tokens; ++t, dst += kStagedBytes) {
            const std::byte* codes = span->codes + t * token_bytes + first * itemsize(codec);
            if constexpr (codec == Codec::float32 || codec == Codec::int8) {
                std::memcpy(dst, codes, static_cast<size_t>(dims * itemsize(codec)));
                if constexpr (codec == Codec::int8) std::memset(dst + dims, 0, static_cast<size_t>(-dims & 3));
            } else {
                for (int64_t i = 0; i < dims; ++i) {
                    const uint16_t code = reinterpret_cast<const uint16_t*>(codes)[i];
                    reinterpret_cast<float*>(dst)[i] = codec == Codec::float16 ? from_float16(code) : from_bfloat16(code);
                }
            }
        }
    }
}

template <Codec codec, class Kind>
constexpr TileKernel kernel{"serial", Kind::element, Layout::quads,  false,   false,  1,
                            kBlock,   stage<codec>,  multiply<Kind>, nullptr, nullptr};

}  // namespace

const TileKernel* kernel_serial(Codec codec, int64_t) {
    switch (codec) {
        case Codec::float32: return &kernel<Codec::float32, Floats>;
        case Codec::float16: return &kernel<Codec::float16, Floats>;
        case Codec::bfloat16: return &kernel<Codec::bfloat16, Floats>;
        case Codec::int8: return &kernel<Codec::int8, Bytes>;
    }
    return nullptr;
}

}  // namespace metaindex
