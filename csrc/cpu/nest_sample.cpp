// Draws tokens by the square of their distance to the nearest vector that was chosen before.
#include <algorithm>
#include <limits>

#include "nest_orders.hpp"

namespace metaindex {
namespace {

constexpr float kTaken = -1;

// SplitMix64 at a step: the same numbers on every machine. In [0, 1).
double drawn(uint64_t seed, int64_t step) {
    uint64_t bits = seed + 0x9E3779B97F4A7C15u * static_cast<uint64_t>(step);
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    return static_cast<double>((bits ^ (bits >> 31)) >> 11) * 0x1p-53;
}

// The first token at which the sum of what is above zero passes a share of the whole; the first zero where nothing is above.
int64_t chosen(const float* distances, int64_t count, double share) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += std::max(0.0, static_cast<double>(distances[i]));
    if (total == 0) return std::find(distances, distances + count, 0.0f) - distances;
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (distances[i] <= 0) continue;
        sum += static_cast<double>(distances[i]);
        if (sum > share * total) return i;
    }
    return std::max_element(distances, distances + count) - distances;
}

}  // namespace

void nest_by_sample(const Nesting& document, uint64_t seed, const NestKernels& kernels, NestRooms& rooms) {
    take_mean(document, rooms);
    const Panels tokens = in_panels(document, document.vectors, kernels, rooms);
    const int64_t count = document.count, all = tokens.count;
    float* squares = rooms.numbers.of(3 * all);
    float* distances = squares + all;
    float* products = distances + all;
    kernels.squares(tokens, squares);
    std::fill_n(distances, count, std::numeric_limits<float>::max());
    int64_t newest = count;  // the mean
    for (int64_t at = 1; at < document.size; ++at) {
        kernels.products(tokens, document.vectors + (at - 1) * document.dim, products);
        for (int64_t i = 0; i < count; ++i) {
            const float distance = std::max(0.0f, (squares[i] + squares[newest]) - 2 * products[i]);
            distances[i] = std::min(distances[i], distance);
        }
        newest = chosen(distances, count, drawn(seed, at));
        distances[newest] = kTaken;
        take_token(document, at, newest);
    }
}

}  // namespace metaindex
