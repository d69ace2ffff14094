// MaxSim for many query tokens, which is bound by arithmetic: tiles of 128 document tokens by 128 query tokens.
//
// A block of four warps, two by two, each multiplying 64 rows by 64 columns, reads a tile's documents and columns through a
// ring of stages that all its threads fill, three stages ahead and on over the ends of tiles. The maximum over a document's
// tokens stays in the registers of the thread that holds its row, the sum over a query's tokens crosses four threads, and
// nothing but scores or hits leaves the block. What follows comes after ptx.cuh.
#pragma once

#include "tile_copies.cuh"
#include "tile_products.cuh"

namespace metaindex::device {

template <class Products, bool kScaled>
class TileBlock {
 public:
    __device__ __forceinline__ TileBlock(const MaxSim& p, unsigned char* memory)
        : p_(p),
          shared_(*reinterpret_cast<TileLayout*>(memory)),
          lane_(static_cast<int>(threadIdx.x % 32u)),
          row_warp_(static_cast<int>(threadIdx.x / 32u % kTileRowWarps)),
          group_(static_cast<int>(threadIdx.x / 32u / kTileRowWarps % 2u)),
          document_rows_(p.rows.tokens() < kTileStrips ? p.rows.tokens() : kTileStrips) {}

    __device__ __forceinline__ void run() {
        for (int group = 0; group < 2; ++group) shared_.total[group][threadIdx.x] = 0;
        TileCopies copies(p_, shared_);
        Stage ahead[TileLayout::kStages - 1];  // what was filled and not multiplied yet
        products_.clear();
        forget_maxima();
        int filled = 0, multiplied = 1 - TileLayout::kStages;  // stages; the first rounds do nothing but fill
#pragma unroll 1
        while (true) {
            wait_for_copies<TileLayout::kStages - 2>();
            __syncthreads();  // the stage `multiplied` is there for all, and the one before it has been read by all
            const Stage now = ahead[0];
#pragma unroll
            for (int i = 1; i < TileLayout::kStages - 1; ++i) ahead[i - 1] = ahead[i];
            ahead[TileLayout::kStages - 2] = copies.fill(filled);
            filled = filled + 1 == TileLayout::kStages ? 0 : filled + 1;
            if (multiplied >= 0) {
                if (!now.is(Stage::kFilled)) break;
                if (group_ < p_.groups) {
                    products_.add(shared_.rows[multiplied] + row_warp_ * kWarpRows * kChunkBytes,
                                  shared_.columns[multiplied] + group_ * kGroupColumns * kChunkBytes, lane_,
                                  p_.columns.tiles());
                    if (now.is(Stage::kStepEnds)) {
                        finish_step(now, scratch(multiplied));
                        products_.clear();
                        if (now.is(Stage::kPassEnds)) forget_maxima();
                    }
                }
            }
            multiplied = multiplied + 1 == TileLayout::kStages ? 0 : multiplied + 1;
        }
    }

 private:
    static constexpr int kWarpRows = kTileStrips * kStripRows;
    static constexpr int kGroupColumns = ColumnMap::kMostTiles * kTileColumns;
    static_assert(2 * ColumnMap::kMostTiles * sizeof(float) <= kChunkBytes, "scores find room in the rows of a stage");

    // Room for scores of this warp's documents with each query: half of the rows that were just multiplied, once the other warp
    // that multiplied them is done with them too. They are filled again after all have met.
    __device__ __forceinline__ float* scratch(int stage) const {
        if (p_.groups > 1) row_warp_ == 0 ? meet<1, 64>() : meet<2, 64>();
        return reinterpret_cast<float*>(shared_.rows[stage] + row_warp_ * kWarpRows * kChunkBytes) +
               group_ * ColumnMap::kMostTiles * kWarpRows;
    }

    __device__ __forceinline__ void forget_maxima() {
#pragma unroll
        for (int n = 0; n < kTileTiles; ++n) maxima_[n][0] = maxima_[n][1] = -INFINITY;
    }

    // Column by column: the maximum of what each document's rows in this thread found. A document that has all of them may have
    // more steps to come, and its maxima are kept; with fewer rows, a step is all that it has. At the end of a pass sums over
    // each query's columns go to `scores`, from where they are given out: what that takes is many instructions, once.
    __device__ __forceinline__ void finish_step(const Stage& now, float* scores) {
        const float* factors = shared_.factor[now.step()] + row_warp_ * kWarpRows + lane_row(lane_);
        const float* weights = shared_.weight[now.pass()] + group_ * kGroupColumns + lane_column(lane_);
        float factor[kTileStrips];  // negative where the row counts for nothing
#pragma unroll
        for (int j = 0; j < kTileStrips; ++j) factor[j] = factors[j * kStripRows];
        float sums[kTileStrips] = {};
        int tiles = 0;
#pragma unroll
        for (int n = 0; n < kTileTiles; ++n) {
            if (n < p_.columns.tiles()) {
#pragma unroll
                for (int e = 0; e < 2; ++e) add_maxima(sums, factor, n, e, weights[n * kTileColumns + e]);
                if (now.is(Stage::kPassEnds) && ++tiles == p_.columns.query_tiles) {
                    keep_scores(sums, scores);
                    scores += kWarpRows;
                    tiles = 0;
                }
            }
        }
        if (!now.is(Stage::kPassEnds)) return;
        scores -= p_.columns.queries * kWarpRows;
        const int64_t first_query = shared_.query[now.pass()] + group_ * p_.columns.queries;
#pragma unroll 1
        for (int i = 0; i < p_.columns.queries * 2; ++i) {
            give_scores(now, first_query + i / 2, i % 2 * 4 + lane_quarter(lane_), scores + i / 2 * kWarpRows);
        }
    }

    __device__ __forceinline__ void add_maxima(float (&sums)[kTileStrips], const float (&factor)[kTileStrips], int tile,
                                               int side, float weight) {
        float values[kTileStrips];
#pragma unroll
        for (int j = 0; j < kTileStrips; ++j) {
            const float sum = products_.sum(j, tile, side);
            values[j] = factor[j] < 0 ? -INFINITY : kScaled ? sum * factor[j] : sum;
        }
#pragma unroll
        for (int span = 1; span < kTileStrips; span *= 2) {
            if (span < document_rows_) {
#pragma unroll
                for (int j = 0; j < kTileStrips; j += 2 * span) values[j] = larger(values[j], values[j + span]);
            }
        }
        if (document_rows_ == kTileStrips) {
            maxima_[tile][side] = larger(maxima_[tile][side], values[0]);
            sums[0] += weighted(maxima_[tile][side], weight);
        } else {
#pragma unroll
            for (int j = 0; j < kTileStrips; ++j) sums[j] += weighted(values[j], weight);
        }
    }

    // Of the strips that are the first of a document; strip j by thread j % 4 of the four that share a row.
    __device__ __forceinline__ void keep_scores(float (&sums)[kTileStrips], float* scores) const {
#pragma unroll
        for (int j = 0; j < kTileStrips; ++j) {
            const float sum = sum_of_quarters(sums[j]);
            sums[j] = 0;
            if (lane_quarter(lane_) == j % 4 && p_.rows.leads(j, lane_row(lane_))) {
                scores[p_.rows.document(j, lane_row(lane_))] = sum;
            }
        }
    }

    // Of one query and the document whose first row is in `strip`, if there is one: what this thread has kept.
    __device__ __forceinline__ void give_scores(const Stage& now, int64_t query, int strip, const float* scores) {
        int64_t target = -1;
        float score = 0;
        if (p_.rows.leads(strip, lane_row(lane_))) {
            const int document = p_.rows.document(strip, lane_row(lane_));
            target = shared_.target[now.pass()][row_warp_ * p_.rows.documents() + document];
            score = scores[document];
            if (p_.columns.passes > 1) {  // then a group has one query
                float& total = shared_.total[group_][row_warp_ * p_.rows.documents() + document];
                score += total;
                total = now.is(Stage::kWorkEnds) ? 0 : score;
            }
        }
        if (now.is(Stage::kWorkEnds) && query < p_.queries.batch) give(p_, query, target >= 0, target, score);
    }

    const MaxSim& p_;
    TileLayout& shared_;
    const int lane_, row_warp_, group_;
    const int document_rows_;  // of this thread: 1, 2, 4 or 8 in a row belong to one document
    Products products_;
    float maxima_[kTileTiles][2];
};

}  // namespace metaindex::device
