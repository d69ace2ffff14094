// MaxSim for few query tokens, which is bound by memory: what it takes to keep the documents coming, and nothing else.
//
// The queries stay in shared memory. Every warp goes through documents of its own; every thread has a ring of its own, fills it
// by copies that go on behind its back, some stages ahead, and reads nothing but what it filled. So nobody waits for anybody,
// looking up the next documents' addresses costs no time while copies are under way, and a block has as few warps or as many as
// fit. What follows comes after ptx.cuh.
#pragma once

#include "columns.cuh"
#include "copies.cuh"
#include "layout.hpp"
#include "output.cuh"
#include "stream_products.cuh"

namespace metaindex::device {

template <class Products, bool kScaled>
class StreamBlock {
 public:
    __device__ __forceinline__ StreamBlock(const MaxSim& p, unsigned char* memory)
        : p_(p),
          layout_(StreamLayout::of(p, static_cast<int>(blockDim.x) / 32)),
          queries_(memory),
          weights_(reinterpret_cast<float*>(memory + layout_.weights)),
          lane_(static_cast<int>(threadIdx.x % 32u)),
          warp_(static_cast<int>(threadIdx.x / 32u)),
          chunks_(p.chunks()),
          long_lines_(p.row_bytes % 256 == 0),
          document_(p.rows.document(lane_quarter(lane_), lane_row(lane_))),
          token_(p.rows.token(lane_quarter(lane_), lane_row(lane_))) {
        ring_ = memory + layout_.rings + warp_ * StreamLayout::kStages * layout_.stage_bytes;
        const auto block = static_cast<int32_t>(blockIdx.x) % p.blocks, part = static_cast<int32_t>(blockIdx.x) / p.blocks;
        first_query_ = int64_t{part} * p.columns.queries;
        list_ = p.documents.own_lists ? part : 0;
        // Neighbouring units go to different multiprocessors: where there are few, all take part.
        first_unit_ = int64_t{warp_} * p.blocks + block;
        stride_ = int64_t{p.blocks} * (static_cast<int>(blockDim.x) / 32);
    }

    __device__ __forceinline__ void run() {
        load_queries();
        __syncthreads();
        ahead_.unit = first_unit_;
        more_ = find_unit();
#pragma unroll 1
        for (int i = 0; i < StreamLayout::kStages; ++i) fill();
#pragma unroll 1
        for (int64_t unit = first_unit_; unit < p_.units; unit += stride_) score(unit);
    }

 private:
    struct Ahead {
        int64_t unit;
        int32_t token = 0;  // the first of the step
        int32_t chunk = 0;
        int32_t stage = 0;
        Document document;  // of this thread's own row: strip `lane_quarter` of its rows
    };

    __device__ __forceinline__ void load_queries() {
        const int pieces = chunks_ * layout_.query_columns * kChunkPieces;
        for (int i = static_cast<int>(threadIdx.x); i < pieces; i += static_cast<int>(blockDim.x)) {
            const int piece = i % kChunkPieces, place = i / kChunkPieces;
            const int column = place % layout_.query_columns, chunk = place / layout_.query_columns;
            const int64_t query = first_query_ + column / layout_.query_stride;
            const int token = column % layout_.query_stride, offset = chunk * kChunkBytes + piece * kPieceBytes;
            const bool there = query < p_.queries.batch && token < p_.queries.tokens;
            const int64_t row = there ? query * p_.queries.tokens + token : 0;
            const auto* codes = static_cast<const unsigned char*>(p_.queries.codes) + row * p_.row_bytes + offset;
            reinterpret_cast<uint4*>(queries_)[i] =
                load_piece(codes, there ? piece_bytes(p_.row_bytes, offset) : 0, p_.copy_bytes);
        }
        for (int i = static_cast<int>(threadIdx.x); i < p_.columns.tiles() * kTileColumns; i += static_cast<int>(blockDim.x)) {
            weights_[i] = weight_of(p_, first_query_ + p_.columns.query(i), p_.columns.token(0, i));
        }
    }

    __device__ __forceinline__ bool any_token(const Document& document, int32_t first) const {
        return __any_sync(0xFFFFFFFF, document.tokens > first + token_) != 0;
    }

    // From ahead_.unit on, the first one with a token to score.
    __device__ __forceinline__ bool find_unit() {
        for (; ahead_.unit < p_.units; ahead_.unit += stride_) {
            ahead_.document = find_document(p_, list_, ahead_.unit * p_.rows.documents() + document_);
            if (any_token(ahead_.document, 0)) return true;
        }
        return false;
    }

    // Starts the copies of one more stage, or of none where there are no more.
    __device__ __forceinline__ void fill() {
        unsigned char* stage = ring_ + ahead_.stage * layout_.stage_bytes;
        if (more_) {
            if (ahead_.chunk == 0) find_rows(stage);
            const int offset = ahead_.chunk * kChunkBytes + lane_quarter(lane_) * kPieceBytes;
            const int bytes = piece_bytes(p_.row_bytes, offset);
            if (p_.copy_bytes == kPieceBytes) {
#pragma unroll
                for (int j = 0; j < kStreamStrips; ++j) {
                    const bool there = sources_[j] != nullptr && bytes > 0;
                    copy_16(cell(stage, j), there ? sources_[j] + offset : p_.queries.codes, there ? bytes : 0, long_lines_);
                }
            } else {
#pragma unroll
                for (int j = 0; j < kStreamStrips; ++j) {
                    const bool there = sources_[j] != nullptr && bytes > 0;
                    const auto* from = there ? sources_[j] + offset : static_cast<const unsigned char*>(p_.queries.codes);
                    start_narrow_piece(cell(stage, j), from, there ? bytes : 0, p_.copy_bytes);
                }
            }
            if (++ahead_.chunk == chunks_) {
                ahead_.chunk = 0;
                ahead_.token += p_.rows.tokens();
                if (!any_token(ahead_.document, ahead_.token)) {
                    ahead_.token = 0;
                    ahead_.unit += stride_;
                    more_ = find_unit();
                }
            }
        }
        commit_copies();
        ahead_.stage = ahead_.stage + 1 == StreamLayout::kStages ? 0 : ahead_.stage + 1;
    }

    // Each thread looks up one row and tells the other three that read of it.
    __device__ __forceinline__ void find_rows(unsigned char* stage) {
        TokenAddress own{nullptr, nullptr};
        const int32_t token = ahead_.token + token_;
        if (token < ahead_.document.tokens) {
            own = find_token(p_, ahead_.document.segment, ahead_.document.local, token);
        }
        const auto address = reinterpret_cast<unsigned long long>(own.codes);
#pragma unroll
        for (int j = 0; j < kStreamStrips; ++j) {
            sources_[j] = reinterpret_cast<const unsigned char*>(__shfl_sync(0xFFFFFFFF, address, (lane_ & ~3) + j));
        }
        if constexpr (kScaled) {
            const void* from = own.scale != nullptr ? own.scale : p_.queries.scales;
            copy_4(scale_cell(stage), from, own.scale != nullptr ? 4 : 0);
        }
    }

    __device__ __forceinline__ unsigned char* cell(unsigned char* stage, int strip) const {
        return stage + (strip * 32 + lane_) * kPieceBytes;
    }
    __device__ __forceinline__ float* scale_cell(unsigned char* stage) const {
        return reinterpret_cast<float*>(stage + StreamLayout::kCellsBytes) + lane_;
    }

    __device__ __forceinline__ void score(int64_t unit) {
        const Document document = find_document(p_, list_, unit * p_.rows.documents() + document_);
        if (document.column >= 0 && document.tokens == 0 && token_ == 0) {
            give_nothing(p_, first_query_, p_.columns.queries, document.column);
        }
        float maxima[kStreamStrips][Products::kMostTiles][2];
#pragma unroll
        for (int j = 0; j < kStreamStrips; ++j)
#pragma unroll
            for (int n = 0; n < Products::kMostTiles; ++n) maxima[j][n][0] = maxima[j][n][1] = -INFINITY;
        bool scored = false;
#pragma unroll 1
        for (int32_t token = 0; any_token(document, token); token += p_.rows.tokens()) {
            multiply(document.tokens > token + token_, maxima);
            scored = true;
        }
        if (scored) sum_up(document, maxima);
    }

    // One step: all dimensions of the next tokens. `there`: whether this thread's own row is a token.
    __device__ __forceinline__ void multiply(bool there, float (&maxima)[kStreamStrips][Products::kMostTiles][2]) {
        Products products;
        products.clear();
        float own_scale = 1;
        const unsigned char* chunk_queries = queries_;
#pragma unroll 1
        for (int chunk = 0; chunk < chunks_; ++chunk) {
            wait_for_copies<StreamLayout::kStages - 1>();
            unsigned char* stage = ring_ + stage_ * layout_.stage_bytes;
            uint4 rows[kStreamStrips];
#pragma unroll
            for (int j = 0; j < kStreamStrips; ++j) rows[j] = *reinterpret_cast<const uint4*>(cell(stage, j));
            if (kScaled && chunk == 0) own_scale = *scale_cell(stage);
            products.add(rows, chunk_queries, lane_, p_.columns.tiles(), layout_.query_columns);
            chunk_queries += layout_.query_columns * kChunkBytes;
            fill();  // the stage that was just read
            stage_ = stage_ + 1 == StreamLayout::kStages ? 0 : stage_ + 1;
        }
        products.finish(lane_);
        const unsigned rows_there = __ballot_sync(0xFFFFFFFF, there) >> (lane_ & ~3);
#pragma unroll
        for (int j = 0; j < kStreamStrips; ++j) {
            float scale = 1;
            if constexpr (kScaled) scale = __shfl_sync(0xFFFFFFFF, own_scale, (lane_ & ~3) + j);
            if ((rows_there >> j & 1) != 0) {
#pragma unroll
                for (int n = 0; n < Products::kMostTiles; ++n) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const float sum = products.sum(j, n, e);
                        maxima[j][n][e] = larger(maxima[j][n][e], kScaled ? sum * scale : sum);
                    }
                }
            }
        }
    }

    // The maximum of each document in the first of its strips, then the sum over each query's tokens.
    __device__ __forceinline__ void sum_up(const Document& document,
                                           float (&maxima)[kStreamStrips][Products::kMostTiles][2]) const {
        const int documents = p_.rows.documents();
#pragma unroll
        for (int n = 0; n < Products::kMostTiles; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                if (documents <= 2 * kStripRows) {
                    maxima[0][n][e] = larger(maxima[0][n][e], maxima[1][n][e]);
                    maxima[2][n][e] = larger(maxima[2][n][e], maxima[3][n][e]);
                }
                if (documents <= kStripRows) {
                    float found = larger(maxima[0][n][e], maxima[2][n][e]);
                    if (documents <= 4) found = larger(found, __shfl_xor_sync(0xFFFFFFFF, found, 16));
                    if (documents <= 2) found = larger(found, __shfl_xor_sync(0xFFFFFFFF, found, 8));
                    if (documents <= 1) found = larger(found, __shfl_xor_sync(0xFFFFFFFF, found, 4));
                    maxima[0][n][e] = found;
                }
            }
        }
        const bool here = token_ == 0 && document.tokens > 0;
        const int64_t target = target_of(p_, document);
        const float* weights = weights_ + lane_column(lane_);
#pragma unroll 1
        for (int query = 0; query < p_.columns.queries && first_query_ + query < p_.queries.batch; ++query) {
            float sums[kStreamStrips] = {};
#pragma unroll
            for (int n = 0; n < Products::kMostTiles; ++n) {
                if (n >= query * p_.columns.query_tiles && n < (query + 1) * p_.columns.query_tiles) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const float weight = weights[n * kTileColumns + e];
#pragma unroll
                        for (int j = 0; j < kStreamStrips; ++j) sums[j] += weighted(maxima[j][n][e], weight);
                    }
                }
            }
            float score = 0;
#pragma unroll
            for (int j = 0; j < kStreamStrips; ++j) {
                const float sum = sum_of_quarters(sums[j]);  // of no meaning where the strip is not a document's first
                if (lane_quarter(lane_) == j) score = sum;
            }
            give(p_, first_query_ + query, here, target, score);
        }
    }

    const MaxSim& p_;
    const StreamLayout layout_;
    unsigned char* const queries_;
    float* const weights_;
    unsigned char* ring_;
    const int lane_, warp_, chunks_;
    const bool long_lines_;
    const int document_, token_;  // of this thread's own row: which of the unit's, and of the step's
    int64_t first_query_, list_, first_unit_, stride_;
    Ahead ahead_;
    bool more_;
    const unsigned char* sources_[kStreamStrips];  // of this thread's rows, null for none
    int stage_ = 0;
};

}  // namespace metaindex::device
