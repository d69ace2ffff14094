// AVX-512 BF16: two bfloat16 products per lane and instruction, summed in float32.
#include "avx512_tile.hpp"

namespace metaindex {
namespace {

struct Pairs {
    using Sum = __m512;
    using Query = __m512bh;
    static Query query(const std::byte* from) { return reinterpret_cast<Query>(_mm512_loadu_si512(from)); }
    static __m512bh broadcast(const std::byte* token) {
        return reinterpret_cast<__m512bh>(_mm512_set1_epi32(*reinterpret_cast<const int32_t*>(token)));
    }
    static Sum step(Sum sum, Query query, __m512bh token) { return _mm512_dpbf16_ps(sum, query, token); }
};

void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    stage_tokens<uint16_t, 32>(spans, count, token_bytes, first, dims, dst,
                               [](std::byte* to, const uint16_t* from, uint64_t mask) {
                                   _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), from));
                               });
}

constexpr TileKernel kBFloat16{"avx512bf16", Element::bfloat16, Layout::lanes,   false,   false,  1,
                               2 * kBlock,   stage,             multiply<Pairs>, nullptr, nullptr};

}  // namespace

const TileKernel* kernel_avx512bf16(Codec codec, int64_t) { return codec == Codec::bfloat16 ? &kBFloat16 : nullptr; }

}  // namespace metaindex
