// Scores and places as one int64 that orders like results: see metaindex/device/keys.py, whose keys these are.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.hpp"

namespace metaindex::device {

inline constexpr int64_t kMissing = INT64_MIN;

METAINDEX_HOST_DEVICE inline int32_t float_bits(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_int(value);
#else
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

// NaN counts as -inf.
METAINDEX_HOST_DEVICE inline float without_nan(float score) { return score == score ? score : -__builtin_huge_valf(); }

// An integer that orders like the score; -0.0 is 0.0.
METAINDEX_HOST_DEVICE inline int32_t rising(float score) {
    const int32_t bits = float_bits(score == 0.0f ? 0.0f : without_nan(score));
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

METAINDEX_HOST_DEVICE constexpr int64_t key_of(int32_t rising_score, int32_t place) {
    return int64_t{rising_score} * (int64_t{1} << 32) + (INT32_MAX - place);
}

}  // namespace metaindex::device
