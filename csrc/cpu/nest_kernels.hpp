// What each instruction set offers to the orders of `nest`.
#pragma once

#include <cstdint>

namespace metaindex {

// Tokens side by side: [panels][dim][panel], with zeros for tokens that there are not.
struct Panels {
    const float* numbers;
    int64_t count;  // of tokens, those that there are not included: whole panels
    int64_t dim;
};

// Numbers nearer to zero than `limit` are rounded to multiples of a step, by adding and taking away `shift`.
struct Grid {
    float limit;
    float shift;
};

// A row of similarities, of which what lies between two bounds is added up.
struct Slice {
    const float* row;
    float low;
    float high;
};

// Unless told otherwise, an inner product is one chain of products and sums in float32, from the first dimension to the last,
// each rounded: all instruction sets give the same bits. Fused multiplications would be faster, and other ones where there are
// none.
struct NestKernels {
    int64_t panel;  // tokens of a panel
    // Inner products of each token with each, [count, count] in rows `stride` apart, rounded.
    void (*similarities)(Panels tokens, Grid grid, float* to, int64_t stride);
    // Of each token with one [dim], and of each token with itself: [count].
    void (*products)(Panels tokens, const float* token, float* to);
    void (*squares)(Panels tokens, float* to);
    // Of some tokens of a document [t, dim] with one vector, each in sixteen sums by turns, which are added up in pairs.
    void (*dots)(const float* document, int64_t dim, const int64_t* places, int64_t count, const float* vector, float* to);
    // Of inner products `row` of a token with others: scale * (squares[i] + square - 2 row[i]), or 0 where that is below 0.
    void (*to_distances)(const float* squares, float square, float scale, float* row, int64_t count);
    // The first place of the least number, all of them at least 0, among those that are not gone: whose bits in `gone` are 0
    // and not those of infinity.
    int64_t (*least)(const float* row, const int32_t* gone, int64_t count);
    // Distances `row` of a cluster of `size` tokens become those of its union with another of `other_size`, whose are `others`
    // and which is `apart` from it (Lance and Williams, 1967, for Ward's method).
    void (*join_distances)(const float* others, const float* sizes, float size, float other_size, float apart, float* row,
                           int64_t count);
    // sums[i] += sign * sum over slices of clamp(row[i], low, high) - low, for i < count.
    void (*add_slices)(const Slice* slices, int64_t number, double sign, double* sums, int64_t count);
};

extern const NestKernels kNestGeneric;
extern const NestKernels kNestAvx2;
extern const NestKernels kNestAvx512;

}  // namespace metaindex
