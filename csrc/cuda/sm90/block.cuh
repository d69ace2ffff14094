// A thread block's shared memory, and the rings that its warps hand each other work through.
#pragma once

#include "scan.hpp"

namespace metaindex::device::sm90 {

inline constexpr unsigned kWarp = 0xFFFFFFFF;

// Where one is in a ring of slots. A slot's barriers end one phase per round, so its parity is the round's.
struct Ring {
    int slot = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next(int size) {
        if (++slot == size) {
            slot = 0;
            parity ^= 1;
        }
    }
    __device__ __forceinline__ void skip(int count, int size) {
        slot += count;
        parity ^= slot / size & 1;
        slot %= size;
    }
};

struct Block {
    const Scan& scan;
    unsigned char* memory;
    uint32_t address;  // of memory, a multiple of kSwizzleBytes

    __device__ __forceinline__ const Tiling& tiling() const { return scan.tiling; }

    // A stage is full once all that its thread announced has come, and empty once each warp that multiplied it is done with it.
    __device__ __forceinline__ uint32_t full(int stage) const { return barrier(stage); }
    __device__ __forceinline__ uint32_t empty(int stage) const { return barrier(kMaxStages + stage); }
    // An item is full once the scheduler has written it, and empty once the loader and all warps that multiply are done with
    // it.
    __device__ __forceinline__ uint32_t item_full(int slot) const { return barrier(2 * kMaxStages + slot); }
    __device__ __forceinline__ uint32_t item_empty(int slot) const { return barrier(2 * kMaxStages + kItems + slot); }
    __device__ __forceinline__ uint32_t queries_full() const { return barrier(2 * kMaxStages + 2 * kItems); }

    __device__ __forceinline__ Item* items() const { return reinterpret_cast<Item*>(memory + tiling().items); }
    // What each column's products are multiplied by; NaN where there is no token.
    __device__ __forceinline__ float* columns(int slot) const { return floats(tiling().columns) + slot * kColumns; }
    __device__ __forceinline__ float* scratch(int group) const {
        return floats(tiling().scratch) + group * kScratchDocuments * kScratchStride;
    }
    // What the earlier parts of long queries add to each document's score.
    __device__ __forceinline__ float* totals(int group) const { return floats(tiling().totals) + group * kColumns; }

    // One slice of a block of rows, and one of the documents.
    __device__ __forceinline__ uint32_t query_slice(int stage, int owner, int row_block, int slice) const {
        const Tiling& t = tiling();
        if (!t.resident) return address + t.ring + stage * t.stage_bytes + owner * kQueryBytes;
        return address + ((owner * t.row_blocks + row_block) * t.slices + slice) * kQueryBytes;
    }
    __device__ __forceinline__ uint32_t document_slice(int stage) const {
        const Tiling& t = tiling();
        return address + t.ring + stage * t.stage_bytes + (t.stage_bytes - kStageBytes);
    }

    __device__ __forceinline__ void init_barriers() const {
        for (int stage = 0; stage < tiling().stages; ++stage) {
            ptx::barrier_init(full(stage), 1);
            ptx::barrier_init(empty(stage), 4 * kConsumers);
        }
        for (int slot = 0; slot < kItems; ++slot) {
            ptx::barrier_init(item_full(slot), 1);
            ptx::barrier_init(item_empty(slot), 1 + 4 * kConsumers);
        }
        ptx::barrier_init(queries_full(), 1);
        ptx::barriers_ready();
    }

 private:
    __device__ __forceinline__ uint32_t barrier(int number) const { return address + tiling().barriers + 8 * number; }
    __device__ __forceinline__ float* floats(int offset) const { return reinterpret_cast<float*>(memory + offset); }
};

}  // namespace metaindex::device::sm90
