// The k largest keys by their digits, and their order: what topk's kernels compute, apart from who computes it.
#pragma once

#include <cstdint>

#include "keys.hpp"

namespace metaindex::device {

// Keys as unsigned numbers of the same order. That of kMissing is 0.
METAINDEX_HOST_DEVICE constexpr uint64_t ordinal_of(int64_t key) { return static_cast<uint64_t>(key) ^ (uint64_t{1} << 63); }
METAINDEX_HOST_DEVICE constexpr int64_t key_of(uint64_t ordinal) { return static_cast<int64_t>(ordinal ^ (uint64_t{1} << 63)); }

inline constexpr int kDigitBits = 8;
inline constexpr int kBins = 1 << kDigitBits;
inline constexpr int kDigits = 64 / kDigitBits;

METAINDEX_HOST_DEVICE constexpr int digit_of(uint64_t ordinal, int number) {
    return static_cast<int>(ordinal >> (64 - kDigitBits * (number + 1)) & (kBins - 1));
}

// What is known of the k largest after the first digits: `wanted` of those that start like `least` belong to them, and all that
// are larger. `settled`: exactly so many start like it, so no further digit need be looked at.
struct Selection {
    uint64_t least;
    int64_t wanted;
    bool settled;

    // Of the digits before `number`, whether an ordinal has those of `least`.
    METAINDEX_HOST_DEVICE constexpr bool concerns(uint64_t ordinal, int number) const {
        return number == 0 || (ordinal ^ least) >> (64 - kDigitBits * number) == 0;
    }
    // After the last digit: whether an ordinal is among the k largest. Those equal to `least`, if they are not all, come apart.
    METAINDEX_HOST_DEVICE constexpr bool takes(uint64_t ordinal) const { return settled ? ordinal >= least : ordinal > least; }
    // How often `least` itself is to be added.
    METAINDEX_HOST_DEVICE constexpr int64_t repeats() const { return settled ? 0 : wanted; }

    // One digit more: `above` of the ordinals that were concerned have a larger one than `digit`, and `sharing` have that.
    METAINDEX_HOST_DEVICE constexpr Selection narrowed(int number, int digit, int64_t above, int64_t sharing) const {
        return {least | static_cast<uint64_t>(digit) << (64 - kDigitBits * (number + 1)), wanted - above,
                sharing == wanted - above};
    }
};

// A step of a bitonic sort: which two places `pair` compares, and whether the larger one comes first. `run` doubles from 2 to
// the number of places, and in each run `step` halves from run / 2 to 1.
struct Exchange {
    int low, high;
    bool falling;
};
METAINDEX_HOST_DEVICE constexpr Exchange exchange(int pair, int run, int step) {
    const int low = 2 * pair - (pair & (step - 1));
    return {low, low + step, (low & run) == 0};
}

// Of two falling runs, how many of the first `place` of both merged come from the first one, which goes first among equals.
METAINDEX_HOST_DEVICE inline int64_t merge_split(const uint64_t* first, int64_t first_count, const uint64_t* second,
                                                 int64_t second_count, int64_t place) {
    int64_t low = place > second_count ? place - second_count : 0, high = place < first_count ? place : first_count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (first[middle] >= second[place - 1 - middle]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Where what topk needs besides its answer lies: for each query the state of its selection, its histograms, and two buffers of
// k ordinals that runs are sorted and merged in.
struct SelectionScratch {
    struct State {
        Selection selections[kDigits + 1];  // after so many digits
        int32_t bins[kDigits][kBins];
        unsigned long long taken;
    };

    METAINDEX_HOST_DEVICE static constexpr int64_t bytes(int64_t batch, int64_t k) {
        return batch * (static_cast<int64_t>(sizeof(State)) + 2 * k * static_cast<int64_t>(sizeof(uint64_t)));
    }
    METAINDEX_HOST_DEVICE static State* state(std::byte* scratch, int64_t query) {
        return reinterpret_cast<State*>(scratch) + query;
    }
    METAINDEX_HOST_DEVICE static uint64_t* buffer(std::byte* scratch, int64_t batch, int64_t k, int64_t query, int number) {
        return reinterpret_cast<uint64_t*>(reinterpret_cast<State*>(scratch) + batch) + (2 * query + number) * k;
    }
};

}  // namespace metaindex::device
