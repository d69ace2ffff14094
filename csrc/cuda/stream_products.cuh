// Products of a warp whose threads hold the documents' pieces themselves.
//
// A sum over dimensions may take them in any order. So a thread reads 16 bytes side by side of its row, and of the queries'
// columns the same 16 bytes, and hands them to two products as if they were the words that those products ask for: documents
// need no trip through shared memory to be sorted, and each query column is read once, 16 bytes at a time.
#pragma once

#include "fragments.hpp"

namespace metaindex::device {

// The piece of a column that this thread multiplies with.
__device__ __forceinline__ uint4 query_piece_of(const unsigned char* chunk, int column, int quarter) {
    return *reinterpret_cast<const uint4*>(chunk + column * kChunkBytes + quarter * kPieceBytes);
}

template <class Number, int kTiles>
class MatrixStream {
 public:
    static constexpr int kMostTiles = kTiles;

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int n = 0; n < kTiles; ++n)
#pragma unroll
                for (int c = 0; c < 4; ++c) sums_[i][n][c] = 0;
    }

    // One chunk: the pieces of this thread's rows, strip by strip, with `tiles` column tiles of which `columns` are there.
    __device__ __forceinline__ void add(const uint4 (&rows)[4], const unsigned char* chunk, int lane, int tiles, int columns) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
            if (n < tiles) {
                const int column = n * kTileColumns + lane_row(lane);
                uint4 query = make_uint4(0, 0, 0, 0);
                if (column < columns) query = query_piece_of(chunk, column, lane_quarter(lane));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const uint4 &low = rows[2 * i], &high = rows[2 * i + 1];
                    Number::multiply(sums_[i][n], {low.x, high.x, low.y, high.y}, query.x, query.y);
                    Number::multiply(sums_[i][n], {low.z, high.z, low.w, high.w}, query.z, query.w);
                }
            }
        }
    }

    __device__ __forceinline__ void finish(int) {}

    // Of this thread's row of a strip and one of its two columns of a tile.
    __device__ __forceinline__ float sum(int strip, int tile, int side) const {
        return static_cast<float>(sums_[strip / 2][tile][strip % 2 * 2 + side]);
    }

 private:
    typename Number::Sum sums_[2][kTiles][4];
};

// float32, which tensor cores would round: each thread sums over its own pieces, for all columns; then the four threads of a
// row add up, each what will be its columns.
template <int kTiles>
class FloatStream {
 public:
    static constexpr int kMostTiles = kTiles;

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int c = 0; c < kTiles * kTileColumns; ++c) parts_[j][c] = 0;
    }

    __device__ __forceinline__ void add(const uint4 (&rows)[4], const unsigned char* chunk, int lane, int, int columns) {
#pragma unroll
        for (int c = 0; c < kTiles * kTileColumns; ++c) {
            if (c < columns) {
                const uint4 query = query_piece_of(chunk, c, lane_quarter(lane));
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float part = parts_[j][c];
                    part = fmaf(__uint_as_float(rows[j].x), __uint_as_float(query.x), part);
                    part = fmaf(__uint_as_float(rows[j].y), __uint_as_float(query.y), part);
                    part = fmaf(__uint_as_float(rows[j].z), __uint_as_float(query.z), part);
                    parts_[j][c] = fmaf(__uint_as_float(rows[j].w), __uint_as_float(query.w), part);
                }
            }
        }
    }

    __device__ __forceinline__ void finish(int lane) {
        const bool upper = (lane & 2) != 0, odd = (lane & 1) != 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
                const float (&part)[kTiles * kTileColumns] = parts_[j];
                float half[4];
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const float low = part[n * kTileColumns + c], high = part[n * kTileColumns + 4 + c];
                    half[c] = (upper ? high : low) + __shfl_xor_sync(0xFFFFFFFF, upper ? low : high, 2);
                }
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    sums_[j][n][c] =
                        (odd ? half[2 + c] : half[c]) + __shfl_xor_sync(0xFFFFFFFF, odd ? half[c] : half[2 + c], 1);
                }
            }
        }
    }

    __device__ __forceinline__ float sum(int strip, int tile, int side) const { return sums_[strip][tile][side]; }

 private:
    float parts_[4][kTiles * kTileColumns];
    float sums_[4][kTiles][2];
};

}  // namespace metaindex::device
