#include "boxes.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace metaindex::device::sm90 {

namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// Asked of the driver at run time: the module is not linked to it and imports without one.
EncodeTiled encode_tiled() {
    static const EncodeTiled found = [] {
        void* entry = nullptr;
        cudaDriverEntryPointQueryResult status{};
#if CUDART_VERSION >= 12050
        const cudaError_t error =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &status);
#else
        const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &status);
#endif
        if (error != cudaSuccess || status != cudaDriverEntryPointSuccess || entry == nullptr) {
            throw std::runtime_error("maxsim_scan_sm90: the driver has no cuTensorMapEncodeTiled");
        }
        return reinterpret_cast<EncodeTiled>(entry);
    }();
    return found;
}

CUtensorMapDataType type_of(Codec codec) {
    switch (codec) {
        case Codec::float16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
        case Codec::bfloat16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
        default: return CU_TENSOR_MAP_DATA_TYPE_UINT8;
    }
}

}  // namespace

void encode(const Box& box, void* map) {
    static_assert(sizeof(CUtensorMap) == kMapBytes);
    const cuuint32_t every[3] = {1, 1, 1};
    // 256 bytes at a time from memory: the next slice of the same tokens is what follows.
    const CUresult error =
        encode_tiled()(static_cast<CUtensorMap*>(map), type_of(box.codec), 3, reinterpret_cast<void*>(box.address), box.sizes,
                       box.strides, box.box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error != CUDA_SUCCESS) {
        throw std::runtime_error("maxsim_scan_sm90: the driver refused a tensor map: error " + std::to_string(error));
    }
}

}  // namespace metaindex::device::sm90
