#include "metaindex/encode.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "encode_rows.hpp"
#include "thread_pool.hpp"

namespace metaindex {
namespace {

constexpr int64_t kNumbersAtOnce = 64 * 1024;

const RowEncoders& encoders(Isa isa) {
    if (!feature(isa).ok) throw std::invalid_argument("isa: " + feature(isa).why);
#if defined(METAINDEX_X86_KERNELS)
    if (isa >= Isa::avx512) return kEncodersAvx512;
    if (isa == Isa::avx2) return kEncodersAvx2;
#endif
    return kEncodersSerial;
}

// Calls row(outer, inner) for every token, in pieces that threads take in turn.
template <class Row>
void each_token(TokenShape shape, int num_threads, Row row) {
    const int64_t tokens = shape.outer * shape.inner;
    const int64_t size = std::max<int64_t>(1, kNumbersAtOnce / std::max<int64_t>(1, shape.dim));
    const int64_t pieces = (tokens + size - 1) / size;
    std::atomic<int64_t> next{0};
    parallel(static_cast<int>(std::min<int64_t>(num_threads, pieces)), [&](int) {
        for (int64_t piece; (piece = next++) < pieces;) {
            const int64_t last = std::min(tokens, (piece + 1) * size);
            for (int64_t t = piece * size; t < last; ++t) row(t / shape.inner, t % shape.inner);
        }
    });
}

}  // namespace

void encode_float16(TokenView<const float> tokens, TokenShape shape, TokenView<uint16_t> codes, Run run) {
    const auto encode = encoders(run.isa).float16;
    each_token(shape, run.num_threads, [&](int64_t o, int64_t i) { encode(tokens.token(o, i), shape.dim, codes.token(o, i)); });
}

void encode_bfloat16(TokenView<const float> tokens, TokenShape shape, TokenView<uint16_t> codes, Run run) {
    const auto encode = encoders(run.isa).bfloat16;
    each_token(shape, run.num_threads, [&](int64_t o, int64_t i) { encode(tokens.token(o, i), shape.dim, codes.token(o, i)); });
}

void encode_int8(TokenView<const float> tokens, TokenShape shape, TokenView<int8_t> codes, TokenView<float> scales, Run run) {
    const auto encode = encoders(run.isa).int8;
    each_token(shape, run.num_threads,
               [&](int64_t o, int64_t i) { *scales.token(o, i) = encode(tokens.token(o, i), shape.dim, codes.token(o, i)); });
}

}  // namespace metaindex
