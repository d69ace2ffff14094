// What handlers of instructions share: values in slots, and loops over lanes.
#pragma once

#include <cstring>

#include "machine.hpp"
#include "numbers.hpp"

namespace emulator {

template <class T>
T get(Slot slot) {
    T value;
    std::memcpy(&value, &slot, sizeof(T));
    return value;
}

template <class T>
Slot slot_of(T value) {
    Slot slot = 0;
    std::memcpy(&slot, &value, sizeof(T));
    return slot;
}

template <class Do>
inline void each(Mask lanes, Do act) {
    if (lanes == ~Mask{0}) {
        for (int lane = 0; lane < kLanes; ++lane) act(lane);
    } else {
        for (; lanes; lanes &= lanes - 1) act(__builtin_ctz(lanes));
    }
}

inline int count(Mask lanes) { return __builtin_popcount(lanes); }

}  // namespace emulator
