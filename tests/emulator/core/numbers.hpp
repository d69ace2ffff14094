// Number formats of the PTX ISA, and rounding between them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace emulator {

template <class To, class From>
To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

enum class Rounding : uint8_t { nearest, zero, down, up, away };  // away: nearest, ties away from zero

// `value` rounded to an integer; NaN and infinities stay.
inline double round_to_integer(double value, Rounding rounding) {
    switch (rounding) {
        case Rounding::zero: return std::trunc(value);
        case Rounding::down: return std::floor(value);
        case Rounding::up: return std::ceil(value);
        case Rounding::away: return std::round(value);
        default: return std::nearbyint(value);
    }
}

// The bits of `value` in a binary format with these numbers of exponent and mantissa bits.
template <int kExponent, int kMantissa>
uint32_t narrowed(double value, Rounding rounding, bool saturate) {
    constexpr uint32_t kSign = 1u << (kExponent + kMantissa);
    constexpr uint32_t kInfinity = ((1u << kExponent) - 1) << kMantissa;
    constexpr int kLeast = 2 - (1 << (kExponent - 1));  // the exponent of the smallest normal number
    if (std::isnan(value)) return kSign - 1;
    const uint32_t sign = std::signbit(value) ? kSign : 0;
    const auto largest = [&] {
        const bool outward = rounding == Rounding::nearest || rounding == Rounding::away ||
                             (rounding == Rounding::up && !sign) || (rounding == Rounding::down && sign);
        return sign | (saturate || !outward ? kInfinity - 1 : kInfinity);
    };
    if (std::isinf(value)) return saturate ? sign | (kInfinity - 1) : sign | kInfinity;
    if (value == 0) return sign;
    int exponent;
    std::frexp(value, &exponent);
    const int unit = std::max(exponent - 1, kLeast) - kMantissa;  // of the last place
    const double scaled = round_to_integer(std::ldexp(value, -unit), rounding);
    const auto digits = static_cast<uint32_t>(std::fabs(scaled));
    // For a subnormal number the field is 0 and a carry makes it 1, the smallest normal one; else the hidden bit is the carry.
    const int field = exponent - 1 < kLeast ? 0 : unit + kMantissa - kLeast;
    if (field >= (1 << kExponent) - 1) return largest();
    const uint32_t bits = (static_cast<uint32_t>(field) << kMantissa) + digits;
    return bits >= kInfinity ? largest() : sign | bits;
}

template <int kExponent, int kMantissa>
float widened(uint32_t bits) {
    constexpr int kBias = (1 << (kExponent - 1)) - 1;
    const bool negative = bits >> (kExponent + kMantissa) & 1;
    const uint32_t field = bits >> kMantissa & ((1u << kExponent) - 1), mantissa = bits & ((1u << kMantissa) - 1);
    float magnitude;
    if (field == (1u << kExponent) - 1) {
        magnitude = mantissa ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
    } else if (field == 0) {
        magnitude = std::ldexp(static_cast<float>(mantissa), 1 - kBias - kMantissa);
    } else {
        magnitude = bit_cast<float>((field - kBias + 127) << 23 | mantissa << (23 - kMantissa));
    }
    return negative ? -magnitude : magnitude;
}

struct Half {
    uint16_t bits;
    using Wide = float;
    static Half from(double value, Rounding rounding = Rounding::nearest, bool saturate = false) {
        return {static_cast<uint16_t>(narrowed<5, 10>(value, rounding, saturate))};
    }
    float wide() const { return widened<5, 10>(bits); }
};

struct BFloat {
    uint16_t bits;
    using Wide = float;
    static BFloat from(double value, Rounding rounding = Rounding::nearest, bool saturate = false) {
        return {static_cast<uint16_t>(narrowed<8, 7>(value, rounding, saturate))};
    }
    float wide() const { return bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// Two numbers in one 32-bit register, the first in the lower half.
template <class Number>
struct Pair {
    Number lower, upper;
};

inline uint32_t tf32(double value, Rounding rounding) { return narrowed<8, 10>(value, rounding, false) << 13; }
// What matrix units see of a 32-bit number: the lower 13 bits are dropped.
inline float tf32_seen(uint32_t bits) { return bit_cast<float>(bits & ~0x1FFFu); }

template <class T>
inline constexpr bool is_pair = false;
template <class Number>
inline constexpr bool is_pair<Pair<Number>> = true;
template <class T>
inline constexpr bool is_narrow = std::is_same_v<T, Half> || std::is_same_v<T, BFloat>;

inline float flushed(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }

}  // namespace emulator
