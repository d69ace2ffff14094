// The kernels of `nest` in the compiler's own vectors, for files that are compiled for one instruction set each.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "nest_kernels.hpp"

namespace metaindex {
namespace {

// Vectors of kBytes; kRows tokens of a panel are multiplied at once, as many as there are registers for.
template <int kBytes, int kRows>
struct NestBody {
    using Vector __attribute__((vector_size(kBytes))) = float;
    static constexpr int64_t kLanes = kBytes / 4;
    static constexpr int64_t kPanel = 2 * kLanes;
    static constexpr int64_t kAtOnce = 4;  // panels or rows, where one alone would wait for its own sums

    static Vector load(const float* from) {
        Vector vector;
        std::memcpy(&vector, from, kBytes);
        return vector;
    }
    static void store(float* to, Vector vector) { std::memcpy(to, &vector, kBytes); }

    static Vector rounded(Vector sum, Grid grid) {
        const Vector near = (sum + grid.shift) - grid.shift;
        return (sum < grid.limit) & (sum > -grid.limit) ? near : sum;
    }

    // kRows tokens of one panel with all tokens of another.
    static void multiply(const float* few, const float* panel, int64_t dim, Grid grid, float* to, int64_t stride) {
        Vector sums[kRows][2] = {};
        for (int64_t k = 0; k < dim; ++k, few += kPanel, panel += kPanel) {
            const Vector low = load(panel), high = load(panel + kLanes);
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                sums[row][0] += low * few[row];
                sums[row][1] += high * few[row];
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            store(to + row * stride, rounded(sums[row][0], grid));
            store(to + row * stride + kLanes, rounded(sums[row][1], grid));
        }
    }

    static void similarities(Panels tokens, Grid grid, float* to, int64_t stride) {
        const int64_t size = tokens.dim * kPanel;
        for (int64_t i = 0; i < tokens.count; i += kPanel) {
            for (int64_t j = i; j < tokens.count; j += kPanel) {
                float* tile = to + i * stride + j;
                for (int64_t row = 0; row < kPanel; row += kRows) {
                    multiply(tokens.numbers + i / kPanel * size + row, tokens.numbers + j / kPanel * size, tokens.dim, grid,
                             tile + row * stride, stride);
                }
                if (j != i) mirror(tile, to + j * stride + i, stride);
            }
        }
    }

    static void mirror(const float* tile, float* to, int64_t stride) {
        float copy[kPanel * kPanel];
        for (int64_t row = 0; row < kPanel; ++row) std::memcpy(copy + row * kPanel, tile + row * stride, kPanel * 4);
        for (int64_t row = 0; row < kPanel; ++row) {
            for (int64_t column = 0; column < kPanel; ++column) to[row * stride + column] = copy[column * kPanel + row];
        }
    }

    // Calls with(k, vector) for what each vector of a panel is multiplied with at dimension k.
    template <int64_t kPanels, class With>
    static void reduce(const float* panels, int64_t dim, With with, float* to) {
        Vector sums[kPanels][2] = {};
        for (int64_t k = 0; k < dim; ++k) {
#pragma GCC unroll 4
            for (int64_t p = 0; p < kPanels; ++p) {
                const float* at = panels + (p * dim + k) * kPanel;
                sums[p][0] += with(k, load(at));
                sums[p][1] += with(k, load(at + kLanes));
            }
        }
        for (int64_t p = 0; p < kPanels; ++p) {
            store(to + p * kPanel, sums[p][0]);
            store(to + p * kPanel + kLanes, sums[p][1]);
        }
    }

    template <class With>
    static void reduce_all(Panels tokens, With with, float* to) {
        int64_t i = 0;
        for (; i + kAtOnce * kPanel <= tokens.count; i += kAtOnce * kPanel) {
            reduce<kAtOnce>(tokens.numbers + i * tokens.dim, tokens.dim, with, to + i);
        }
        for (; i < tokens.count; i += kPanel) reduce<1>(tokens.numbers + i * tokens.dim, tokens.dim, with, to + i);
    }

    static void products(Panels tokens, const float* token, float* to) {
        reduce_all(tokens, [token](int64_t k, Vector numbers) { return numbers * token[k]; }, to);
    }

    static void squares(Panels tokens, float* to) {
        reduce_all(tokens, [](int64_t, Vector numbers) { return numbers * numbers; }, to);
    }

    static void dots(const float* document, int64_t dim, const int64_t* places, int64_t count, const float* vector, float* to) {
        constexpr int64_t kSums = 16;
        for (int64_t i = 0; i < count; ++i) {
            const float* token = document + places[i] * dim;
            Vector vectors[kSums / kLanes] = {};
            int64_t k = 0;
            for (; k + kSums <= dim; k += kSums) {
                for (int64_t v = 0; v < kSums / kLanes; ++v) {
                    vectors[v] += load(token + k + v * kLanes) * load(vector + k + v * kLanes);
                }
            }
            float sums[kSums];
            std::memcpy(sums, vectors, sizeof sums);
            for (int64_t rest = 0; k + rest < dim; ++rest) sums[rest] += token[k + rest] * vector[k + rest];
            for (int64_t half = kSums / 2; half; half /= 2) {
                for (int64_t s = 0; s < half; ++s) sums[s] += sums[s + half];
            }
            to[i] = sums[0];
        }
    }

    static void to_distances(const float* __restrict squares, float square, float scale, float* __restrict row, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
            const float distance = squares[i] + square - 2 * row[i];
            row[i] = (distance > 0 ? distance : 0.0f) * scale;
        }
    }

    // As integers, in whose order numbers from 0 on are too, and of which compilers make vectors.
    static int64_t least(const float* row, const int32_t* gone, int64_t count) {
        const auto* bits = reinterpret_cast<const int32_t*>(row);
        int32_t best = std::numeric_limits<int32_t>::max();
        for (int64_t i = 0; i < count; ++i) best = std::min(best, bits[i] | gone[i]);
        constexpr int64_t kBlock = 64;
        int64_t at = 0;
        for (int32_t found = 0; at + kBlock <= count; at += kBlock) {
            for (int64_t i = at; i < at + kBlock; ++i) found |= (bits[i] | gone[i]) == best;
            if (found) break;
        }
        while ((bits[at] | gone[at]) != best) ++at;
        return at;
    }

    static void join_distances(const float* __restrict others, const float* __restrict sizes, float size, float other_size,
                               float apart, float* __restrict row, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
            const float sum = (size + sizes[i]) * row[i] + (other_size + sizes[i]) * others[i] - sizes[i] * apart;
            const float distance = sum / (size + other_size + sizes[i]);
            row[i] = distance > 0 ? distance : 0.0f;
        }
    }

    static float clamped(float value, float low, float high) {
        const float raised = value > low ? value : low;
        return raised < high ? raised : high;
    }

    static void add_slices(const Slice* slices, int64_t number, double sign, double* __restrict sums, int64_t count) {
        const Slice nothing{slices ? slices->row : nullptr, 0, 0};
        for (int64_t first = 0; first < number; first += kAtOnce) {
            Slice some[kAtOnce];
            double low = 0;
            for (int64_t s = 0; s < kAtOnce; ++s) {
                some[s] = first + s < number ? slices[first + s] : nothing;
                low += some[s].low;
            }
            const auto [a, b, c, d] = some;
            for (int64_t i = 0; i < count; ++i) {
                const double within = static_cast<double>(clamped(a.row[i], a.low, a.high)) + clamped(b.row[i], b.low, b.high) +
                                      clamped(c.row[i], c.low, c.high) + clamped(d.row[i], d.low, d.high);
                sums[i] += sign * (within - low);
            }
        }
    }

    static constexpr NestKernels kernels() {
        return {kPanel, similarities, products, squares, dots, to_distances, least, join_distances, add_slices};
    }
};

}  // namespace
}  // namespace metaindex
