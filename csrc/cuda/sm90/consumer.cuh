// A warpgroup that multiplies: products in registers, maxima over documents, sums over queries.
#pragma once

#include <type_traits>

#include "block.cuh"
#include "output.cuh"

namespace metaindex::device::sm90 {

template <Codec kCodec>
class Consumer {
    using Number = std::conditional_t<kCodec == Codec::int8, int32_t, float>;

 public:
    __device__ Consumer(const Block& block, int group)
        : block_(block),
          group_(group),
          owner_(block.tiling().alternate ? 0 : group),
          thread_(threadIdx.x % kWarpgroup),
          query_tile_(block.scan.first_tile + static_cast<int>(blockIdx.x) % block.scan.wave) {}

    __device__ __forceinline__ void run() {
        const Tiling& t = block_.tiling();
        Ring items, ring;
        // Products, then what becomes of them: one array throughout, for two would not fit into the registers.
        Number numbers[kNumbers];
        float carried[4];
        if (t.resident) ptx::wait(block_.queries_full(), 0);
        for (;; items.next(kItems)) {
            ptx::wait(block_.item_full(items.slot), items.parity);
            // Items stay in shared memory and are read where they are asked for: registers are few.
            const Item& item = block_.items()[items.slot];
            if (item.rows == 0) return;
            take(item, block_.columns(items.slot), ring, numbers, carried);
            done(block_.item_empty(items.slot));
        }
    }

 private:
    __device__ __forceinline__ void take(const Item& item, const float* columns, Ring& ring, Number (&numbers)[kNumbers],
                                         float (&carried)[4]) const {
        const Tiling& t = block_.tiling();
        // A held tile keeps its stages until the last block of rows has seen it.
        const bool seen = !t.held || item.row_block + 1 == t.row_blocks;
        Ring from = ring;
        if (t.held) from.skip(item.block * t.slices, t.stages);
        if (!t.held || (seen && item.last)) ring.skip((t.held ? item.block + 1 : 1) * t.slices, t.stages);
        const bool others = t.alternate && item.tile % kConsumers != group_;
        if (others || t.first_query(query_tile_, owner_, item.row_block) >= block_.scan.queries.batch) {
            if (seen) pass(from);
            return;
        }
        const int stage = multiply(item.row_block, from, seen, numbers);
        const float2 weights = row_weights(item.row_block);  // while the last products are under way
        ptx::wait_products<0>();
        ptx::pin(numbers);
        if (seen) done(block_.empty(stage));

        if (item.masked) {
            scale<true>(numbers, columns);
        } else if (kCodec == Codec::int8) {
            scale<false>(numbers, columns);
        }
        fold(numbers);
        // From block to block only the four values are carried that up to 8 documents have.
        if (item.block > 0) {
#pragma unroll
            for (int i = 0; i < 4; ++i) raise(numbers[i], carried[i]);
        }
        if (!item.last) {
#pragma unroll
            for (int i = 0; i < 4; ++i) carried[i] = value(numbers[i]);
            return;
        }
        fold_lanes(numbers);
        weigh(numbers, weights);
        for (int first = 0; first < t.documents.documents(); first += kScratchDocuments) {
            ptx::sync_warpgroup(group_);  // what was there has been read
            store(numbers, first);
            ptx::sync_warpgroup(group_);
            finish(item, first);
        }
    }

    // Of each warp one thread says that it is done: what a thread has waited for holds for its warp.
    __device__ __forceinline__ void done(uint32_t barrier) const {
        __syncwarp();
        if (thread_ % 32 == 0) ptx::arrive(barrier);
    }

    // Past an item that has nothing for this warpgroup. It takes part in giving the stages back all the same: a wait tells the
    // phases of a stage apart by their parity, so none may go by unseen.
    __device__ __forceinline__ void pass(Ring at) const {
        const Tiling& t = block_.tiling();
        for (int slice = 0; slice < t.slices; ++slice) {
            ptx::wait(block_.full(at.slot), at.parity);
            done(block_.empty(at.slot));
            at.next(t.stages);
        }
    }

    // Issues all products of an item, slice by slice, with one group of them under way while the next is issued; says which
    // stage the last group reads.
    __device__ __forceinline__ int multiply(int row_block, Ring at, bool release, Number (&numbers)[kNumbers]) const {
        const Tiling& t = block_.tiling();
        int before = 0;
        for (int slice = 0; slice < t.slices; ++slice) {
            ptx::wait(block_.full(at.slot), at.parity);
            const uint64_t a = descriptor(block_.query_slice(at.slot, owner_, row_block, slice));
            const uint64_t b = descriptor(block_.document_slice(at.slot));
            ptx::products_fence();
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                ptx::multiply<kCodec>(numbers, a + step * (kStepBytes >> 4), b + step * (kStepBytes >> 4), slice | step);
            }
            ptx::commit_products();
            if (slice > 0) {
                ptx::wait_products<1>();
                if (release) done(block_.empty(before));
            }
            before = at.slot;
            at.next(t.stages);
        }
        return before;
    }

    // What each of this thread's two rows counts: 0 where there is no query token.
    __device__ __forceinline__ float2 row_weights(int row_block) const {
        return {row_weight(cell(thread_, 0).row, row_block), row_weight(cell(thread_, 2).row, row_block)};
    }

    __device__ __forceinline__ float row_weight(int row, int row_block) const {
        const Tiling& t = block_.tiling();
        const Queries& queries = block_.scan.queries;
        const int number = t.parts > 1 ? 0 : row / queries.tokens;
        const int query = t.first_query(query_tile_, owner_, row_block) + number;
        const int token = t.first_token(row_block) + row - number * queries.tokens;
        if (number >= t.queries || query >= queries.batch || token >= __ldg(queries.lengths + query)) return 0.0f;
        return kCodec == Codec::int8 ? __ldg(queries.scales + int64_t{query} * queries.tokens + token) : 1.0f;
    }

    // Numbers are products until they are scaled, and floats from then on, in the same registers.
    __device__ __forceinline__ static float value(Number number) {
        if constexpr (kCodec == Codec::int8)
            return __int_as_float(number);
        else
            return number;
    }
    __device__ __forceinline__ static void set(Number& number, float value) {
        if constexpr (kCodec == Codec::int8)
            number = __float_as_int(value);
        else
            number = value;
    }
    __device__ __forceinline__ static void raise(Number& number, float other) {
        set(number, ptx::maximum(value(number), other));
    }

    // What a token's products count: in int8 its scale. A factor of NaN says that there is no token, and what is in the column
    // then is anything, so it is replaced, not multiplied.
    template <bool kMasked>
    __device__ __forceinline__ static void scale(Number (&numbers)[kNumbers], const float* columns) {
        const int column = threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < kNumbers; i += 4) {
            const float2 factor = *reinterpret_cast<const float2*>(columns + 2 * i + column);
            set(numbers[i], scaled<kMasked>(numbers[i], factor.x));
            set(numbers[i + 1], scaled<kMasked>(numbers[i + 1], factor.y));
            set(numbers[i + 2], scaled<kMasked>(numbers[i + 2], factor.x));
            set(numbers[i + 3], scaled<kMasked>(numbers[i + 3], factor.y));
        }
    }

    template <bool kMasked>
    __device__ __forceinline__ static float scaled(Number number, float factor) {
        const float found = kCodec == Codec::int8 ? static_cast<float>(number) * factor : static_cast<float>(number);
        return kMasked && isnan(factor) ? -INFINITY : found;
    }

    // Maxima over columns of the same document, as far as they are this thread's. What is left are the first numbers: documents
    // 8 * j + 2 * (thread % 4) + c, modulo the documents there are, at 4 * j + c and, for the second row, 4 * j + 2 + c.
    template <int kLeft = kNumbers / 2>
    __device__ __forceinline__ void fold(Number (&numbers)[kNumbers]) const {
        if (block_.tiling().documents.documents() > 2 * kLeft) return;  // number i + kLeft is 2 * kLeft columns on
#pragma unroll
        for (int i = 0; i < kLeft; ++i) raise(numbers[i], value(numbers[i + kLeft]));
        if constexpr (kLeft > 4) fold<kLeft / 2>(numbers);
    }

    // Four threads share a row; fewer than 8 documents are spread over them more than once.
    __device__ __forceinline__ void fold_lanes(Number (&numbers)[kNumbers]) const {
        const int documents = block_.tiling().documents.documents();
#pragma unroll
        for (int other = 2; other > 0; other /= 2) {
            if (documents <= 2 * other) {
#pragma unroll
                for (int i = 0; i < 4; ++i) raise(numbers[i], __shfl_xor_sync(kWarp, value(numbers[i]), other));
            }
        }
        if (documents == 1) {
            raise(numbers[0], value(numbers[1]));
            raise(numbers[2], value(numbers[3]));
        }
    }

    // What the maxima count for their query.
    __device__ __forceinline__ void weigh(Number (&numbers)[kNumbers], float2 weights) const {
#pragma unroll
        for (int column = 0; column < kColumns; column += 8) {
            if (column >= block_.tiling().documents.documents()) break;
#pragma unroll
            for (int i = column / 2; i < column / 2 + 4; ++i) {
                const float weight = i & 2 ? weights.y : weights.x;
                set(numbers[i], weight != 0.0f ? value(numbers[i]) * weight : 0.0f);
            }
        }
    }

    // The maxima of kScratchDocuments documents from `first` on. Every one is written out, for registers have no run-time
    // index.
    __device__ __forceinline__ void store(const Number (&numbers)[kNumbers], int first) const {
        const int documents = block_.tiling().documents.documents(), rows = block_.tiling().box_rows;
        const Cell start = cell(thread_, 0);
        float* scratch = block_.scratch(group_) + (start.column - first) * kScratchStride + start.row;
#pragma unroll
        for (int column = 0; column < kColumns; column += 8) {
            if (column >= documents) break;
            if (column / kScratchDocuments * kScratchDocuments != first) continue;
#pragma unroll
            for (int i = column / 2; i < column / 2 + 4; ++i) {
                const Cell on = cell(0, i);
                if (start.row + on.row < rows && (column > 0 || start.column + on.column < documents)) {
                    scratch[on.column * kScratchStride + on.row] = value(numbers[i]);
                }
            }
        }
    }

    // Sums over the tokens of each query, and out.
    __device__ __forceinline__ void finish(const Item& item, int first) const {
        const Tiling& t = block_.tiling();
        const int log2 = min(t.documents.log2, kScratchLog2), documents = 1 << log2, pairs = t.queries << log2;
        const int first_query = t.first_query(query_tile_, owner_, item.row_block);
        const int tokens = min(block_.scan.queries.tokens - t.first_token(item.row_block), kRows);
        const Sink sink(block_.scan, item);
        for (int pair = thread_; pair - thread_ % 32 < pairs; pair += kWarpgroup) {
            const int number = pair >> log2, document = pair & (documents - 1);
            const int query = first_query + number;
            const bool here = pair < pairs && query < block_.scan.queries.batch && first + document < item.rows;
            float sum = 0.0f;
            if (here) {
                const float* found = block_.scratch(group_) + document * kScratchStride + number * tokens;
                for (int token = 0; token < tokens; ++token) sum += found[token];
                if (t.parts > 1) {
                    float* total = block_.totals(group_) + first + document;
                    if (item.row_block > 0) sum += *total;
                    *total = sum;
                }
            }
            if (item.row_block + 1 == t.row_blocks || t.parts == 1) sink.give(here, query, first + document, sum, documents);
        }
    }

    const Block& block_;
    int group_;
    int owner_;  // whose rows these are
    int thread_;
    int query_tile_;
};

}  // namespace metaindex::device::sm90
