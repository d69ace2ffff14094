// AVX-512 VNNI: four int8 products per lane and instruction. One operand of VPDPBUSD is unsigned, so tokens are staged with 128
// added; the panel's bias, -128 times the sum of each query token's codes, takes it back.
#include "avx512_rows.hpp"
#include "avx512_tile.hpp"

namespace metaindex {
namespace {

struct Bytes {
    using Sum = __m512i;
    using Query = __m512i;
    static Query query(const std::byte* from) { return _mm512_loadu_si512(from); }
    static Sum step(Sum sum, Query query, __m512i token) { return _mm512_dpbusd_epi32(sum, token, query); }
};

void stage(const Span* spans, int64_t count, int64_t token_bytes, int64_t first, int64_t dims, std::byte* dst) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(0x80));
    stage_tokens<int8_t, 64>(spans, count, token_bytes, first, dims, dst,
                             [offset](std::byte* to, const int8_t* from, uint64_t mask) {
                                 const __m512i codes = _mm512_maskz_loadu_epi8(mask, from);
                                 _mm512_storeu_si512(to, _mm512_xor_si512(codes, offset));
                             });
}

struct ByteRows {
    using Sum = __m512i;
    static constexpr int kNumbers = 64;
    static constexpr int kCodeBytes = 64;
    static constexpr bool kBiased = true;
    static __m512i load(const std::byte* from, uint64_t mask = ~uint64_t{0}) {
        return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, from), _mm512_set1_epi8(static_cast<char>(0x80)));
    }
    static Sum step(Sum sum, __m512i query, __m512i token) { return _mm512_dpbusd_epi32(sum, token, query); }
};

constexpr TileKernel kRows{"avx512vnni rows",  Element::int8,           Layout::rows, true,    true,      16, kMaxStagedTokens,
                           stage_rows<int8_t>, multiply_rows<ByteRows>, nullptr,      nullptr, 40'000'000};
constexpr TileKernel kQuads{"avx512vnni quads", Element::int8, Layout::quads,         true,    false,   1,
                            2 * kBlock,         stage,         multiply_quads<Bytes>, nullptr, nullptr, 16'000'000};
constexpr TileKernel kPairs{"avx512vnni pairs", Element::int8, Layout::pairs,         true,    false,   1,
                            2 * kBlock,         stage,         multiply_pairs<Bytes>, nullptr, nullptr, 16'000'000};

}  // namespace

const TileKernel* kernel_avx512vnni(Codec codec, int64_t lanes) {
    if (codec != Codec::int8) return nullptr;
    if (lanes <= kFewLanes) return &kRows;
    return lanes <= kLanes ? &kPairs : &kQuads;
}

}  // namespace metaindex
