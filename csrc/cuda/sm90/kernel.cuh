// The kernel of the Hopper scan, for one codec.
//
// Whoever includes this has included ptx.cuh, or on a CPU what stands in for it.
//
// A thread block lives as long as the scan and keeps to one tile of queries, while it walks over every so manieth tile of
// documents. Its first warpgroup feeds it (producer.cuh), the two others multiply (consumer.cuh).
#pragma once

#include "consumer.cuh"
#include "producer.cuh"

namespace metaindex::device::sm90 {

// Of 65,536 registers the two that multiply get nearly all: 128 * 72 + 256 * 216.
inline constexpr int kProducerRegisters = 72;
inline constexpr int kConsumerRegisters = 216;

template <Codec kCodec>
__device__ __forceinline__ void scan_block(const Scan& scan, const void* query_map, unsigned char* memory) {
    const Block block{scan, memory, ptx::shared_address(memory)};
    if (threadIdx.x == 0) block.init_barriers();
    __syncthreads();
    const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
    if (warpgroup == 0) {
        ptx::give_up_registers<kProducerRegisters>();
        if (threadIdx.x / 32 == 0) {
            schedule<kCodec>(block);
        } else if (threadIdx.x / 32 == 1) {
            Loader<kCodec>(block, query_map).run();
        }
    } else {
        ptx::claim_registers<kConsumerRegisters>();
        Consumer<kCodec>(block, warpgroup - 1).run();
    }
}

}  // namespace metaindex::device::sm90
