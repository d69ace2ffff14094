// Packs float32 tokens into a codec, bit for bit as the numpy codecs do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "metaindex/maxsim.hpp"

namespace metaindex {

// [outer, inner] tokens whose numbers lie side by side; strides in bytes.
template <class T>
struct TokenView {
    T* data;
    int64_t outer_stride;
    int64_t inner_stride;

    T* token(int64_t outer, int64_t inner) const {
        using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
        return reinterpret_cast<T*>(reinterpret_cast<Byte*>(data) + outer * outer_stride + inner * inner_stride);
    }
};

struct TokenShape {
    int64_t outer;
    int64_t inner;
    int64_t dim;
};

// Instruction sets that have no encoder of their own use that of the set below them.
void encode_float16(TokenView<const float> tokens, TokenShape shape, TokenView<uint16_t> codes, Run run);
void encode_bfloat16(TokenView<const float> tokens, TokenShape shape, TokenView<uint16_t> codes, Run run);
// `scales` views one float per token: max(|token|) / 127.
void encode_int8(TokenView<const float> tokens, TokenShape shape, TokenView<int8_t> codes, TokenView<float> scales, Run run);

}  // namespace metaindex
