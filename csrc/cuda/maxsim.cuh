// MaxSim on any GPU of compute capability 8.0 and above: tiles of document tokens by query tokens, read through a ring of
// asynchronous loads, multiplied by the matrix units, folded into maxima and sums without leaving the block.
#pragma once

#include <cuda_runtime.h>

#include "arithmetic.cuh"
#include "hits.cuh"
#include "loader.cuh"

namespace metaindex::device {

// One block takes tiles blockIdx.x, blockIdx.x + gridDim.x, ... Loads run ahead of it over the borders of tiles, so that memory
// never waits for a block that folds.
template <class Arithmetic, int N, bool kWide, bool kGather>
class MaxSim {
    using Sum = typename Arithmetic::Sum;
    static constexpr int kStages = N == 128 ? 3 : 4;
    static constexpr int kStageBytes = (kRows + N) * kChunkBytes;

 public:
    __device__ MaxSim(const Work& work, char* shared)
        : work_(work),
          ring_(shared),
          maxima_(reinterpret_cast<float*>(shared + kStages * kStageBytes)),
          warp_(threadIdx.x / 32),
          lane_(threadIdx.x % 32) {}

    __device__ void run() {
        const int64_t tiles = (work_.tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
        const int64_t units = tiles * work_.tile.passes * work_.tile.token_blocks;
        const int chunks = (work_.row_bytes + kChunkBytes - 1) / kChunkBytes;
        const int64_t steps = units * chunks;
        Loader<Arithmetic, N, kWide, kGather> loader(work_);
        int64_t loading = 0;
        int loading_chunk = 0;
        const auto load_next = [&] {
            if (loading < units) {
                if (loading_chunk == 0) loader.enter(Unit(work_, loading));
                loader.load(ring_ + to_ * kStageBytes, loading_chunk);
                to_ = to_ + 1 == kStages ? 0 : to_ + 1;
                if (++loading_chunk == chunks) {
                    loading_chunk = 0;
                    ++loading;
                }
            }
            commit_copies();  // an empty group where nothing is left, so that the groups can be counted
        };
        for (int i = 0; i < kStages - 1; ++i) load_next();
        int64_t unit = 0;
        int chunk = 0, from = 0;
        for (int64_t step = 0; step < steps; ++step) {
            wait_for_copies<kStages - 2>();
            __syncthreads();  // everybody's part of this stage is there, and nobody reads the stage that is loaded next
            load_next();
            if (chunk == 0) clear();
            const char* stage = ring_ + from * kStageBytes;
            Arithmetic::template multiply_chunk<N>(sums_, stage, stage + kRows * kChunkBytes, warp_, lane_);
            from = from + 1 == kStages ? 0 : from + 1;
            if (++chunk == chunks) {
                finish(Unit(work_, unit++));
                chunk = 0;
            }
        }
    }

 private:
    __device__ void clear() {
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int n = 0; n < N / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums_[m][n][i] = 0;
    }

    __device__ void finish(const Unit& unit) {
        const TilePlace place(work_, unit.tile);
        fold(place, unit);
        __syncthreads();
        if (unit.token_block == work_.tile.token_blocks - 1) answer(place, unit);
        // The next maxima are written after another barrier, that of the next step.
    }

    // Similarities become one maximum for each (document, column) of up to 32 rows, in `maxima_`.
    __device__ void fold(const TilePlace& place, const Unit& unit) {
        const int tokens = work_.tile.tokens, log = 31 - __clz(tokens);
        bool there[2][2];
        float scale[2][2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = warp_ * 32 + m * 16 + fragment_row(lane_, 2 * half);
                const int token = unit.token_block * tokens + (row & (tokens - 1));
                const Document document = find_document<kGather>(work_, place, row >> log);
                there[m][half] = Token::exists(work_, document, token);
                scale[m][half] = 1;
                if constexpr (Arithmetic::codec == Codec::int8) {
                    if (there[m][half])
                        scale[m][half] = Token(work_.table, document, token).scale(work_.table, document.segment);
                }
            }
        }
        const int together = folded(tokens);
#pragma unroll
        for (int n = 0; n < N / 8; ++n) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                float x[2][2];
#pragma unroll
                for (int m = 0; m < 2; ++m)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const float similarity = static_cast<float>(sums_[m][n][2 * half + side]) * scale[m][half];
                        x[m][half] = there[m][half] ? similarity : -INFINITY;
                    }
                if (tokens >= 16) {
                    x[0][0] = fmaxf(x[0][0], x[0][1]);
                    x[1][0] = fmaxf(x[1][0], x[1][1]);
                }
                if (tokens >= 32) x[0][0] = fmaxf(x[0][0], x[1][0]);
                const int column = n * 8 + fragment_column(lane_, side);
#pragma unroll
                for (int m = 0; m < 2; ++m)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        if ((m && tokens >= 32) || (half && tokens >= 16)) continue;
                        float best = x[m][half];
                        if (tokens >= 2) best = fmaxf(best, __shfl_xor_sync(~0u, best, 4));
                        if (tokens >= 4) best = fmaxf(best, __shfl_xor_sync(~0u, best, 8));
                        if (tokens >= 8) best = fmaxf(best, __shfl_xor_sync(~0u, best, 16));
                        const int row = warp_ * 32 + m * 16 + fragment_row(lane_, 2 * half);
                        if ((row & (together - 1)) == 0) {
                            float& kept = maxima_[row / together * N + column];
                            kept = unit.token_block ? fmaxf(kept, best) : best;
                        }
                    }
            }
        }
    }

    // Maxima become a score for each (document, query), summed in the order of the query's tokens.
    __device__ void answer(const TilePlace& place, const Unit& unit) {
        const TileChoice& tile = work_.tile;
        const int parts = tile.tokens / folded(tile.tokens);
        const int room = work_.queries.tokens;
        for (int item = threadIdx.x; item < tile.documents * tile.queries; item += kThreads) {
            const int document = item % tile.documents, nth = item / tile.documents, query = place.query + nth;
            if (query >= work_.queries.batch) continue;
            const int first = unit.pass * N;
            const int count = min(work_.queries.lengths[query] - first, tile.passes > 1 ? N : room);
            const float* maxima = maxima_ + document * parts * N + (tile.passes > 1 ? 0 : nth * room);
            float sum = 0;
            for (int i = 0; i < count; ++i) {
                float best = maxima[i];
                for (int part = 1; part < parts; ++part) best = fmaxf(best, maxima[part * N + i]);
                if constexpr (Arithmetic::codec == Codec::int8) {
                    best *= work_.queries.scales[static_cast<int64_t>(query) * room + first + i];
                }
                sum += best;
            }
            // More passes than one mean one query, so that a thread has one document, and carries its sum in a register.
            if (unit.pass) sum += carried_;
            carried_ = sum;
            if (unit.pass == tile.passes - 1) write(find_document<kGather>(work_, place, document), query, sum);
        }
    }

    __device__ void write(const Document& document, int query, float score) const {
        if (document.column < 0) return;
        if (work_.out.scores) {
            work_.out.scores[query * work_.out.columns + document.column] = document.asked() ? ranked(score) : -INFINITY;
        } else if (document.asked()) {
            append(work_.out.hits, query, score, work_.table.places ? work_.table.places[document.row] : document.row);
        }
    }

    const Work& work_;
    char* ring_;
    float* maxima_;
    int warp_, lane_;
    int to_ = 0;
    float carried_ = 0;
    Fragments<Sum, N> sums_;
};

template <class Arithmetic, int N, bool kWide, bool kGather>
__global__ void __launch_bounds__(kThreads, N == 128 ? 2 : 3) maxsim(const __grid_constant__ Work work) {
    extern __shared__ __align__(1024) char shared[];
    MaxSim<Arithmetic, N, kWide, kGather>(work, shared).run();
}

// Of one codec: csrc/cuda/maxsim_<codec>.cu instantiate these.
template <class Arithmetic>
struct Launch {
    static void run(const Work& work, bool gather, cudaStream_t stream);
};

}  // namespace metaindex::device
