// The two warps that feed a thread block: one says what is next, the other has it brought.
#pragma once

#include "block.cuh"

namespace metaindex::device::sm90 {

// The items of a thread block, one after another. Few registers: what follows from others is computed where it is asked for.
class Schedule {
 public:
    __device__ explicit Schedule(const Scan& scan)
        : scan_(scan), lane_(threadIdx.x % 32), next_tile_(blockIdx.x / static_cast<uint32_t>(scan.wave)) {}

    // On to the next item; its rows are 0 at the end.
    __device__ __forceinline__ void next() {
        if (rows_ != 0 && !last()) {
            ++block_;
        } else if (rows_ != 0 && row_block_ + 1 < scan_.tiling.row_blocks) {
            ++row_block_;
            block_ = 0;
        } else {
            next_tile();
        }
    }

    __device__ __forceinline__ int rows() const { return rows_; }

    __device__ __forceinline__ Item item() const {
        return {row_, segment_, first_, rows_, tokens_, block_, last(), row_block_, masked(), tile_};
    }

    // The factors of this lane's columns, 32 * i + lane for number i.
    template <Codec kCodec, int kCount>
    __device__ __forceinline__ void factors(float (&found)[kCount]) const {
        const bool count = kCodec == Codec::int8 || masked();
        int column = lane_;
#pragma unroll
        for (int i = 0; i < kCount; ++i, column += 32) {
            if (i % 4 == 0) ptx::forget(column);  // or the places of all columns are kept from item to item
            found[i] = count ? factor<kCodec>(column) : 1.0f;
        }
    }

 private:
    __device__ __forceinline__ int end() const { return (block_ + 1) * scan_.tiling.documents.tokens(); }
    __device__ __forceinline__ bool last() const { return tokens_ <= end(); }
    __device__ __forceinline__ bool masked() const { return shortest_ < end(); }

    // Each lane reads one of the next 32 tiles, so that the way to memory is gone once for all of them.
    __device__ __forceinline__ void next_tile() {
        if (at_ == 32) {
            at_ = 0;
            read(next_tile_ + lane_ * scan_.step);
            next_tile_ += 32 * scan_.step;
        }
        segment_ = __shfl_sync(kWarp, read_.segment, at_);
        first_ = __shfl_sync(kWarp, read_.first, at_);
        rows_ = __shfl_sync(kWarp, read_.rows, at_);
        tokens_ = __shfl_sync(kWarp, read_.longest, at_);
        shortest_ = __shfl_sync(kWarp, read_.shortest, at_);
        row_ = static_cast<int32_t>(__ldg(scan_.table.first_rows + segment_)) + first_;
        block_ = row_block_ = 0;
        ++tile_;
        ++at_;
    }

    __device__ __forceinline__ void read(uint32_t run) {
        read_.rows = 0;
        if (run >= static_cast<uint32_t>(scan_.runs.count)) return;
        const int32_t* found = scan_.runs.runs + int64_t{3} * run;
        read_ = {__ldg(found), __ldg(found + 1), __ldg(found + 2), scan_.r_c, scan_.r_c};
        if (!scan_.table.full) {  // lengths fall within a segment
            const int32_t* lengths = scan_.table.lengths + __ldg(scan_.table.first_rows + read_.segment) + read_.first;
            read_.longest = min(read_.longest, __ldg(lengths));
            read_.shortest = min(read_.shortest, __ldg(lengths + read_.rows - 1));
        }
    }

    // Without branches, so that the loads of several columns are on their way at once.
    template <Codec kCodec>
    __device__ __forceinline__ float factor(int column) const {
        const Table& table = scan_.table;
        const int document = scan_.tiling.documents.document(column);
        const int token = scan_.tiling.documents.token(block_, column);
        bool there = document < rows_ && token < tokens_;
        if (!table.full) there = there && token < __ldg(table.lengths + row_ + (there ? document : 0));
        float found = 1.0f;
        if constexpr (kCodec == Codec::int8) {
            const int4 source = __ldg(reinterpret_cast<const int4*>(scan_.boxes.sources + (there ? token : 0)));
            const int64_t scales = __ldg(table.scales + int64_t{segment_} * table.levels + source.x);
            const int64_t at = (int64_t{first_} + document) * source.y + source.z;
            if (there) found = __ldg(reinterpret_cast<const float*>(scales) + at);
        }
        return there ? found : __int_as_float(0x7FFFFFFF);
    }

    struct Tile {
        int segment, first, rows, longest, shortest;
    };

    const Scan& scan_;
    int lane_;
    uint32_t next_tile_;
    int at_ = 32;
    Tile read_{};
    int row_ = 0, segment_ = 0, first_ = 0, rows_ = 0, tokens_ = 0, shortest_ = 0, block_ = 0, row_block_ = 0, tile_ = 0;
};

template <Codec kCodec>
__device__ __forceinline__ void schedule(const Block& block) {
    constexpr int kFactors = kColumns / 32;
    const int lane = threadIdx.x % 32;
    Schedule items(block.scan);
    Ring ring;
    float factors[kFactors];
    for (int before = -1;; before = ring.slot, ring.next(kItems)) {
        items.next();
        ptx::wait(block.item_empty(ring.slot), ring.parity ^ 1);
        if (lane == 0) block.items()[ring.slot] = items.item();
        // The factors of the item before have been on their way meanwhile.
        if (before >= 0) {
#pragma unroll
            for (int i = 0; i < kFactors; ++i) block.columns(before)[32 * i + lane] = factors[i];
            __syncwarp();
            if (lane == 0) ptx::arrive(block.item_full(before));
        }
        if (items.rows() == 0) break;
        items.template factors<kCodec>(factors);
    }
    if (lane == 0) ptx::arrive(block.item_full(ring.slot));
}

__device__ __forceinline__ int warp_sum(int value) {
#pragma unroll
    for (int other = 16; other > 0; other /= 2) value += __shfl_xor_sync(kWarp, value, other);
    return value;
}

template <Codec kCodec>
class Loader {
 public:
    __device__ Loader(const Block& block, const void* query_map)
        : block_(block),
          query_map_(query_map),
          lane_(threadIdx.x % 32),
          query_tile_(block.scan.first_tile + static_cast<int>(blockIdx.x) % block.scan.wave) {}

    __device__ __forceinline__ void run() {
        const Tiling& t = block_.tiling();
        if (t.resident) load_queries();
        Ring ring, items;
        for (;;) {
            ptx::wait(block_.item_full(items.slot), items.parity);
            const Item item = block_.items()[items.slot];
            __syncwarp();
            if (lane_ == 0) ptx::arrive(block_.item_empty(items.slot));
            if (item.rows == 0) return;
            items.next(kItems);
            if (t.held && item.row_block > 0) continue;
            acquire_maps(item.segment);
            load(item, ring);
        }
    }

 private:
    static constexpr int kSliceNumbers = kSliceBytes / static_cast<int>(itemsize(kCodec));

    __device__ __forceinline__ void load_queries() const {
        const Tiling& t = block_.tiling();
        const int boxes = t.query_owners() * t.row_blocks * t.slices;
        if (lane_ == 0) ptx::arrive_expecting(block_.queries_full(), boxes * t.box_rows * kSliceBytes);
        __syncwarp();
#pragma unroll 1
        for (int box = lane_; box < boxes; box += 32) {
            const int slice = box % t.slices, row_block = box / t.slices % t.row_blocks;
            load_query(0, box / t.slices / t.row_blocks, row_block, slice, block_.queries_full());
        }
    }

    __device__ __forceinline__ void load_query(int stage, int owner, int row_block, int slice, uint32_t barrier) const {
        const Tiling& t = block_.tiling();
        ptx::load_box(block_.query_slice(stage, owner, row_block, slice), query_map_, slice * kSliceNumbers,
                      t.first_token(row_block), t.first_query(query_tile_, owner, row_block), barrier);
    }

    __device__ __forceinline__ const unsigned char* map(int segment, int piece) const {
        return static_cast<const unsigned char*>(block_.scan.boxes.maps) +
               (int64_t{segment} * block_.scan.boxes.count + piece) * 128;
    }

    // Maps in device memory are acquired before a block's first use of each.
    __device__ __forceinline__ void acquire_maps(int segment) {
        if (segment == acquired_) return;
        acquired_ = segment;
        for (int piece = lane_; piece < block_.scan.boxes.count; piece += 32) ptx::acquire_map(map(segment, piece));
        __syncwarp();
    }

    // All slices of an item's columns: of its block's pieces those that the longest document reaches, one box each.
    __device__ __forceinline__ void load(const Item& item, Ring& ring) const {
        const Tiling& t = block_.tiling();
        const Boxes& boxes = block_.scan.boxes;
        const int begin = __ldg(boxes.starts + item.block), end = __ldg(boxes.starts + item.block + 1);
        int rows = 0;
#pragma unroll 1
        for (int i = begin + lane_; i < end; i += 32) {
            if (__ldg(&boxes.pieces[i].token) < item.tokens) rows += __ldg(&boxes.pieces[i].tokens) << t.documents.log2;
        }
        rows = warp_sum(rows) + (t.resident ? 0 : t.query_owners() * t.box_rows);
        for (int slice = 0; slice < t.slices; ++slice) {
            ptx::wait(block_.empty(ring.slot), ring.parity ^ 1);
            const uint32_t full = block_.full(ring.slot);
            if (lane_ == 0) ptx::arrive_expecting(full, rows * kSliceBytes);
            __syncwarp();
#pragma unroll 1
            for (int i = begin + lane_; i < end; i += 32) {
                const Piece* piece = boxes.pieces + i;
                if (__ldg(&piece->token) >= item.tokens) break;
                ptx::load_box(block_.document_slice(ring.slot) + __ldg(&piece->row) * kSliceBytes, map(item.segment, i),
                              slice * kSliceNumbers, item.first, __ldg(&piece->offset), full);
            }
            if (!t.resident && lane_ < t.query_owners()) load_query(ring.slot, lane_, item.row_block, slice, full);
            __syncwarp();
            ring.next(t.stages);
        }
    }

    const Block& block_;
    const void* query_map_;
    int lane_;
    int query_tile_;
    int acquired_ = -1;
};

}  // namespace metaindex::device::sm90
