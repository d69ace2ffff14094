// Products of a warp whose operands the whole block has put into shared memory: 64 rows by up to 64 columns.
#pragma once

#include "parameters.hpp"

namespace metaindex::device {

inline constexpr int kTileTiles = ColumnMap::kMostTiles;

template <class Number>
class MatrixTile {
 public:
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < kTileStrips / 2; ++i)
#pragma unroll
            for (int n = 0; n < kTileTiles; ++n)
#pragma unroll
                for (int c = 0; c < 4; ++c) sums_[i][n][c] = 0;
    }

    // One chunk of this warp's rows and of the first `tiles` of its column tiles.
    __device__ __forceinline__ void add(const unsigned char* rows, const unsigned char* columns, int lane, int tiles) {
#pragma unroll
        for (int step = 0; step < kChunkSteps; ++step) {
            uint32_t a[kTileStrips / 2][4];
#pragma unroll
            for (int i = 0; i < kTileStrips / 2; ++i) {
                load_matrices(a[i], rows + swizzled(2 * kStripRows * i + document_row(lane), document_piece(lane, step)));
            }
#pragma unroll
            for (int pair = 0; pair < kTileTiles / 2; ++pair) {
                if (2 * pair < tiles) {
                    uint32_t b[4];
                    load_matrices(b, columns + swizzled(2 * kTileColumns * pair + query_column(lane), query_piece(lane, step)));
#pragma unroll
                    for (int i = 0; i < kTileStrips / 2; ++i) {
                        Number::multiply(sums_[i][2 * pair], a[i], b[0], b[1]);
                        Number::multiply(sums_[i][2 * pair + 1], a[i], b[2], b[3]);
                    }
                }
            }
        }
    }

    // Of this thread's row of a strip and one of its two columns of a tile.
    __device__ __forceinline__ float sum(int strip, int tile, int side) const {
        return static_cast<float>(sums_[strip / 2][tile][strip % 2 * 2 + side]);
    }

 private:
    typename Number::Sum sums_[kTileStrips / 2][kTileTiles][4];
};

// float32, which tensor cores would round: each thread multiplies the rows and columns that it would hold of a matrix product.
class FloatTile {
 public:
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int j = 0; j < kTileStrips; ++j)
#pragma unroll
            for (int n = 0; n < kTileTiles; ++n) sums_[j][n][0] = sums_[j][n][1] = 0;
    }

    __device__ __forceinline__ void add(const unsigned char* rows, const unsigned char* columns, int lane, int tiles) {
#pragma unroll 1
        for (int piece = 0; piece < kChunkPieces; ++piece) {
            float4 row[kTileStrips];
#pragma unroll
            for (int j = 0; j < kTileStrips; ++j) {
                row[j] = *reinterpret_cast<const float4*>(rows + swizzled(kStripRows * j + lane_row(lane), piece));
            }
#pragma unroll
            for (int n = 0; n < kTileTiles; ++n) {
                if (n < tiles) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int column = kTileColumns * n + lane_column(lane) + e;
                        const float4 query = *reinterpret_cast<const float4*>(columns + swizzled(column, piece));
#pragma unroll
                        for (int j = 0; j < kTileStrips; ++j) {
                            float sum = fmaf(row[j].x, query.x, sums_[j][n][e]);
                            sum = fmaf(row[j].y, query.y, sum);
                            sum = fmaf(row[j].z, query.z, sum);
                            sums_[j][n][e] = fmaf(row[j].w, query.w, sum);
                        }
                    }
                }
            }
        }
    }

    __device__ __forceinline__ float sum(int strip, int tile, int side) const { return sums_[strip][tile][side]; }

 private:
    float sums_[kTileStrips][kTileTiles][2];
};

}  // namespace metaindex::device
