// Starts the kernel for one codec; each codec is compiled in a file of its own.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "ptx.cuh"

#include "kernel.cuh"

namespace metaindex::device::sm90 {

template <Codec kCodec>
__global__ void __launch_bounds__(kThreads, 1)
    maxsim_scan_kernel(const __grid_constant__ Scan scan, const __grid_constant__ CUtensorMap queries) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(kSwizzleBytes) unsigned char memory[];
    scan_block<kCodec>(scan, &queries, memory);
#endif
}

template <Codec kCodec>
cudaError_t launch(const Scan& scan, const CUtensorMap& queries, cudaStream_t stream) {
    const auto kernel = maxsim_scan_kernel<kCodec>;
    // The same for every launch, so that none takes from another thread's what it has asked for.
    const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return error;
    kernel<<<scan.wave * scan.step, kThreads, scan.tiling.shared_bytes, stream>>>(scan, queries);
    return cudaGetLastError();
}

}  // namespace metaindex::device::sm90
