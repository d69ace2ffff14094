// float16 and bfloat16 as bits, for code that has no instruction for them.
#pragma once

#include <cstdint>
#include <cstring>

namespace metaindex {
namespace {

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float from_bfloat16(uint16_t code) { return float_of(static_cast<uint32_t>(code) << 16); }

// Adding half of the dropped part, and one less when the kept part is even, rounds ties to even.
inline uint16_t to_bfloat16(float value) {
    const uint32_t bits = bits_of(value);
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// The exponent bias differs by 112; a multiplication corrects it and normalises subnormals. Finite codes only.
inline float from_float16(uint16_t code) {
    const float magnitude = float_of(static_cast<uint32_t>(code & 0x7FFFu) << 13) * 0x1p112f;
    return float_of(bits_of(magnitude) | static_cast<uint32_t>(code & 0x8000u) << 16);
}

inline uint16_t to_float16(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
    if (magnitude < 0x38800000u) {
        // Below the smallest normal, adding 0.5 makes the float adder round to multiples of 2^-24.
        return static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3F000000u));
    }
    return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13));
}

}  // namespace
}  // namespace metaindex
