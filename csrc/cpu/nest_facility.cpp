// Greedy facility location: each step takes the token that most raises how well all tokens are represented.
#include <algorithm>
#include <cmath>
#include <limits>

#include "nest_orders.hpp"

namespace metaindex {
namespace {

constexpr int kDigits = 53;   // of a double
constexpr int kHeadroom = 3;  // a gain is at most twice the largest similarity for each token, which rounding may exceed

// The finest steps of which sums of gains are exact: gains then don't depend on how they are added up, and don't drift while
// they are kept up to date.
Grid grid_of(float largest, int64_t count) {
    int exponent, bits = 0;
    std::frexp(largest, &exponent);
    while (bits < 40 && (int64_t{1} << bits) < count) ++bits;
    const double step = std::ldexp(1.0, exponent + bits + kHeadroom - kDigits);
    return {static_cast<float>(std::ldexp(step, 22)), static_cast<float>(std::ldexp(1.5 * step, 23))};
}

}  // namespace

void nest_by_facility(const Nesting& document, const NestKernels& kernels, NestRooms& rooms) {
    take_mean(document, rooms);
    if (document.size == 1) return;
    const Panels tokens = in_panels(document, document.vectors, kernels, rooms);
    const int64_t count = document.count, all = tokens.count, stride = similarity_stride(all);
    float* covered = rooms.numbers.of(all);
    kernels.squares(tokens, covered);
    float* similarities = rooms.similarities.of(all * stride);
    kernels.similarities(tokens, grid_of(*std::max_element(covered, covered + all), count), similarities, stride);

    const float* of_mean = similarities + count * stride;
    std::copy_n(of_mean, count, covered);
    Slice* slices = rooms.slices.of(count);
    for (int64_t i = 0; i < count; ++i) {
        slices[i] = {similarities + i * stride, covered[i], std::numeric_limits<float>::infinity()};
    }
    double* gains = rooms.sums.of(all);
    std::fill_n(gains, count, 0.0);
    std::fill(gains + count, gains + all, -std::numeric_limits<double>::infinity());
    kernels.add_slices(slices, count, 1, gains, all);
    for (int64_t at = 1;; ++at) {
        const int64_t best = std::max_element(gains, gains + count) - gains;
        take_token(document, at, best);
        if (at + 1 == document.size) return;
        gains[best] = -std::numeric_limits<double>::infinity();
        // Only what the chosen token represents better than all before changes a gain.
        int64_t changed = 0;
        for (int64_t i = 0; i < count; ++i) {
            const float now = similarities[best * stride + i];
            slices[changed] = {similarities + i * stride, covered[i], now};
            changed += now > covered[i];
            covered[i] = std::max(covered[i], now);
        }
        kernels.add_slices(slices, changed, -1, gains, all);
    }
}

}  // namespace metaindex
