// What comes next in a block of maxsim_tile, and the copies that bring it.
#pragma once

#include "columns.cuh"
#include "copies.cuh"
#include "layout.hpp"
#include "output.cuh"

namespace metaindex::device {

// What the products need to know of a stage: flags, and the entries of its step and its pass in their rings.
class Stage {
 public:
    static constexpr unsigned kFilled = 1, kStepEnds = 2, kPassEnds = 4, kWorkEnds = 8;

    Stage() = default;
    __device__ __forceinline__ Stage(unsigned flags, int step, int pass)
        : bits_(flags | static_cast<unsigned>(step) << 8 | static_cast<unsigned>(pass) << 16) {}

    __device__ __forceinline__ bool is(unsigned flag) const { return (bits_ & flag) != 0; }
    __device__ __forceinline__ int step() const { return static_cast<int>(bits_ >> 8 & 255); }
    __device__ __forceinline__ int pass() const { return static_cast<int>(bits_ >> 16); }

 private:
    unsigned bits_ = 0;
};

// A block's work is a tile of documents with a block of columns, then the next one, gridDim.x further on; the blocks of columns
// of one tile are neighbours, so that they run side by side and find its documents in the L2. In each work there are passes
// over the columns, in those steps over the tokens, and in those chunks, one per stage. All threads keep the same count.
class TileCopies {
 public:
    __device__ __forceinline__ TileCopies(const MaxSim& p, TileLayout& shared)
        : p_(p), shared_(shared), thread_(static_cast<int>(threadIdx.x % kTileThreads)), work_(blockIdx.x) {
        locate_work();
    }

    // Starts the copies of the next stage, or of none where there are no more. All threads call it together, and have met since
    // the stage was read, and since they last called it.
    __device__ __forceinline__ Stage fill(int stage) {
        unsigned flags = 0;
        if (chunk_ == 0 && step_ == 0) begin_pass();
        if (work_ < works()) {
            if (chunk_ == 0) begin_step();
            copy(stage);
            flags = Stage::kFilled;
            if (++chunk_ == p_.chunks()) flags |= end_step();
        }
        commit_copies();
        return {flags, step_entry_, pass_entry_};
    }

 private:
    static constexpr int kWarpRows = kTileStrips * kStripRows;
    static constexpr int kGroupColumns = ColumnMap::kMostTiles * kTileColumns;
    static constexpr int kCopyRows = kTileThreads / kChunkPieces;
    static_assert(kTileRows == kTileThreads && kTileBlockColumns == kTileThreads, "a thread for each row and each column");

    __device__ __forceinline__ int64_t works() const { return p_.units * p_.column_blocks; }
    __device__ __forceinline__ int documents() const { return kTileRowWarps * p_.rows.documents(); }
    static __device__ __forceinline__ int next_entry(int entry) { return entry + 1 == TileLayout::kRing ? 0 : entry + 1; }

    __device__ __forceinline__ unsigned end_step() {
        chunk_ = 0;
        if (++step_ < steps_) return Stage::kStepEnds;
        step_ = 0;
        if (++pass_ < p_.columns.passes) return Stage::kStepEnds | Stage::kPassEnds;
        pass_ = 0;
        next_work();
        return Stage::kStepEnds | Stage::kPassEnds | Stage::kWorkEnds;
    }

    __device__ __forceinline__ void begin_pass() {
        const int before = pass_entry_;
        pass_entry_ = next_entry(pass_entry_);
        if (pass_ == 0) {
            find_work();
        } else if (thread_ < documents()) {
            shared_.target[pass_entry_][thread_] = shared_.target[before][thread_];
        }
        if (work_ >= works()) return;
        const int group = thread_ / kGroupColumns, column = thread_ % kGroupColumns;
        const bool used = group < p_.groups && column < p_.columns.tiles() * kTileColumns;
        const int64_t query = first_query() + group * p_.columns.queries + (used ? p_.columns.query(column) : 0);
        const int token = p_.columns.token(pass_, column);
        const bool there = used && query < p_.queries.batch && token < p_.queries.tokens;
        const auto* codes = static_cast<const unsigned char*>(p_.queries.codes);
        shared_.column_source[thread_] = there ? codes + (query * p_.queries.tokens + token) * p_.row_bytes : nullptr;
        shared_.weight[pass_entry_][thread_] = there ? weight_of(p_, query, token) : 0.0f;
        if (thread_ == 0) shared_.query[pass_entry_] = first_query();
    }

    __device__ __forceinline__ void next_work() {
        work_ += gridDim.x;
        locate_work();
    }
    __device__ __forceinline__ void locate_work() {
        tile_ = work_ / p_.column_blocks;
        columns_ = static_cast<int32_t>(work_ - tile_ * p_.column_blocks);
    }

    __device__ __forceinline__ int64_t first_query() const { return int64_t{columns_} * p_.groups * p_.columns.queries; }

    // From work_ on, the first one with a token to score. Documents that are left out get their scores here.
    __device__ __forceinline__ void find_work() {
        for (; work_ < works(); next_work()) {
            if (thread_ < documents()) {
                const Document document =
                    find_document(p_, p_.documents.own_lists ? columns_ : 0, tile_ * documents() + thread_);
                shared_.document_segment[thread_] = document.segment;
                shared_.document_row[thread_] = document.local;
                shared_.document_tokens[thread_] = document.tokens;
                shared_.target[pass_entry_][thread_] = document.tokens > 0 ? target_of(p_, document) : -1;
                if (document.column >= 0 && document.tokens == 0) {
                    give_nothing(p_, first_query(), p_.groups * p_.columns.queries, document.column);
                }
            }
            __syncthreads();
            int most = 0;
            for (int i = thread_ % 32; i < documents(); i += 32) most = max(most, shared_.document_tokens[i]);
#pragma unroll
            for (int lane = 16; lane > 0; lane /= 2) most = max(most, __shfl_xor_sync(0xFFFFFFFF, most, lane));
            steps_ = (most + p_.rows.tokens() - 1) >> p_.rows.token_bits;
            if (steps_ > 0) return;
            __syncthreads();  // before the documents are written again
        }
    }

    // Each thread looks up one row.
    __device__ __forceinline__ void begin_step() {
        step_entry_ = next_entry(step_entry_);
        const int strip = thread_ % kWarpRows / kStripRows, row = thread_ % kStripRows;
        const int document = thread_ / kWarpRows * p_.rows.documents() + p_.rows.document(strip, row);
        const int32_t token = step_ * p_.rows.tokens() + p_.rows.token(strip, row);
        TokenAddress found{nullptr, nullptr};
        const bool there = token < shared_.document_tokens[document];
        if (there) found = find_token(p_, shared_.document_segment[document], shared_.document_row[document], token);
        shared_.row_source[thread_] = found.codes;
        float* factor = &shared_.factor[step_entry_][thread_];
        if (found.scale != nullptr) {
            copy_4(factor, found.scale, 4);
        } else {
            *factor = there ? 1.0f : -1.0f;
        }
        __syncthreads();
    }

    // Four threads side by side copy the chunk of one row.
    __device__ __forceinline__ void copy(int stage) {
        const int piece = thread_ % kChunkPieces, first = thread_ / kChunkPieces;
        const int offset = chunk_ * kChunkBytes + piece * kPieceBytes, bytes = piece_bytes(p_.row_bytes, offset);
        // Products take column tiles by two: the second of the last two, if it is none, is filled with zeros.
        const int used = (p_.columns.tiles() + 1) / 2 * 2 * kTileColumns;
        const auto* nothing = static_cast<const unsigned char*>(p_.queries.codes);
        const auto copy_rows = [&](auto copy_piece) {
            copy_piece(shared_.rows[stage], shared_.row_source, [](int) { return true; });
            copy_piece(shared_.columns[stage], shared_.column_source,
                       [&](int column) { return column / kGroupColumns < p_.groups && column % kGroupColumns < used; });
        };
        if (p_.copy_bytes == kPieceBytes) {
            const bool long_lines = p_.row_bytes % 256 == 0;
            copy_rows([&](unsigned char* to, const unsigned char* const* sources, auto wanted) {
#pragma unroll
                for (int row = first; row < kTileRows; row += kCopyRows) {
                    if (!wanted(row)) continue;
                    const unsigned char* from = sources[row];
                    const bool there = from != nullptr && bytes > 0;
                    copy_16(to + swizzled(row, piece), there ? from + offset : nothing, there ? bytes : 0, long_lines);
                }
            });
        } else {
            copy_rows([&](unsigned char* to, const unsigned char* const* sources, auto wanted) {
#pragma unroll 1
                for (int row = first; row < kTileRows; row += kCopyRows) {
                    if (!wanted(row)) continue;
                    const unsigned char* from = sources[row];
                    const bool there = from != nullptr && bytes > 0;
                    start_narrow_piece(to + swizzled(row, piece), there ? from + offset : nothing, there ? bytes : 0,
                                       p_.copy_bytes);
                }
            });
        }
    }

    const MaxSim& p_;
    TileLayout& shared_;
    const int thread_;
    int64_t work_, tile_;
    int32_t columns_;
    int32_t pass_ = 0, step_ = 0, steps_ = 0, chunk_ = 0;
    int step_entry_ = 0, pass_entry_ = 0;
};

}  // namespace metaindex::device
