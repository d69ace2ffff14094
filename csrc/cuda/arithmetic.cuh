// How each codec multiplies one chunk: a tile's rows by its columns, into accumulator fragments.
#pragma once

#include "geometry.hpp"
#include "metaindex/levels.hpp"
#include "ptx.cuh"

namespace metaindex::device {

// Of 32 rows by N columns: c[m][n][i] is row 16 m + fragment_row(lane, i), column 8 n + fragment_column(lane, i).
template <class Sum, int N>
using Fragments = Sum[2][N / 8][4];

// Matrix instructions take 32 bytes of each token at a time, whatever the numbers in them are.
template <class Arithmetic, int N>
__device__ inline void multiply_chunk_by_matrices(Fragments<typename Arithmetic::Sum, N>& c, const char* rows,
                                                  const char* columns, int warp, int lane) {
#pragma unroll
    for (int step = 0; step < kChunkBytes / 32; ++step) {
        uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            load_matrices(a[m], shared_address(rows + swizzled(warp * 32 + m * 16 + lane % 16, step * 2 + lane / 16)));
        }
#pragma unroll
        for (int n = 0; n < N / 8; n += 2) {
            uint32_t b[4];
            load_matrices(b, shared_address(columns + swizzled(n * 8 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2)));
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                Arithmetic::multiply(c[m][n], a[m], b[0], b[1]);
                Arithmetic::multiply(c[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

struct Float16Arithmetic {
    using Sum = float;
    using Number = uint16_t;
    static constexpr Codec codec = Codec::float16;
    __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        multiply_float16(c, a, b0, b1);
    }
    template <int N>
    __device__ static void multiply_chunk(Fragments<Sum, N>& c, const char* rows, const char* columns, int warp, int lane) {
        multiply_chunk_by_matrices<Float16Arithmetic, N>(c, rows, columns, warp, lane);
    }
};

struct BFloat16Arithmetic {
    using Sum = float;
    using Number = uint16_t;
    static constexpr Codec codec = Codec::bfloat16;
    __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        multiply_bfloat16(c, a, b0, b1);
    }
    template <int N>
    __device__ static void multiply_chunk(Fragments<Sum, N>& c, const char* rows, const char* columns, int warp, int lane) {
        multiply_chunk_by_matrices<BFloat16Arithmetic, N>(c, rows, columns, warp, lane);
    }
};

// Sums of products of codes are exact: at most 127 * 127 * 131,072, which 32 bits hold.
struct Int8Arithmetic {
    using Sum = int;
    using Number = uint8_t;
    static constexpr Codec codec = Codec::int8;
    __device__ static void multiply(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        multiply_int8(c, a, b0, b1);
    }
    template <int N>
    __device__ static void multiply_chunk(Fragments<Sum, N>& c, const char* rows, const char* columns, int warp, int lane) {
        multiply_chunk_by_matrices<Int8Arithmetic, N>(c, rows, columns, warp, lane);
    }
};

// In float32 itself: the matrix units would round to TF32.
struct Float32Arithmetic {
    using Sum = float;
    using Number = uint32_t;
    static constexpr Codec codec = Codec::float32;
    template <int N>
    __device__ static void multiply_chunk(Fragments<Sum, N>& c, const char* rows, const char* columns, int warp, int lane) {
        for (int piece = 0; piece < kPieces; ++piece) {
            float4 a[2][2];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int row = warp * 32 + m * 16 + fragment_row(lane, 2 * half);
                    a[m][half] = *reinterpret_cast<const float4*>(rows + swizzled(row, piece));
                }
            }
#pragma unroll
            for (int n = 0; n < N / 8; ++n) {
#pragma unroll
                for (int side = 0; side < 2; ++side) {
                    const int column = n * 8 + fragment_column(lane, side);
                    const float4 b = *reinterpret_cast<const float4*>(columns + swizzled(column, piece));
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float& sum = c[m][n][2 * half + side];
                            sum = fmaf(a[m][half].x, b.x, sum);
                            sum = fmaf(a[m][half].y, b.y, sum);
                            sum = fmaf(a[m][half].z, b.z, sum);
                            sum = fmaf(a[m][half].w, b.w, sum);
                        }
                    }
                }
            }
        }
    }
};

}  // namespace metaindex::device
