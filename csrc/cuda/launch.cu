// The portable kernels as the host starts them.
#include <cuda_runtime.h>

#include "check.hpp"
#include "launch.hpp"

#define METAINDEX_DECLARE_CODEC(codec)                                                                                 \
    extern "C" __global__ void metaindex_maxsim_stream_##codec##_2(const __grid_constant__ metaindex::device::MaxSim); \
    extern "C" __global__ void metaindex_maxsim_stream_##codec##_4(const __grid_constant__ metaindex::device::MaxSim); \
    extern "C" __global__ void metaindex_maxsim_tile_##codec(const __grid_constant__ metaindex::device::MaxSim);
#define METAINDEX_DECLARE_WIDE(codec) \
    extern "C" __global__ void metaindex_maxsim_stream_##codec##_8(const __grid_constant__ metaindex::device::MaxSim);
METAINDEX_DECLARE_CODEC(float32)
METAINDEX_DECLARE_CODEC(float16)
METAINDEX_DECLARE_CODEC(bfloat16)
METAINDEX_DECLARE_CODEC(int8)
METAINDEX_DECLARE_WIDE(float16)
METAINDEX_DECLARE_WIDE(bfloat16)
METAINDEX_DECLARE_WIDE(int8)
extern "C" __global__ void metaindex_topk_slices(const __grid_constant__ metaindex::device::TopKSlices);
extern "C" __global__ void metaindex_topk_start(const __grid_constant__ metaindex::device::TopK);
extern "C" __global__ void metaindex_topk_count(const __grid_constant__ metaindex::device::TopK, const __grid_constant__ int);
extern "C" __global__ void metaindex_topk_collect(const __grid_constant__ metaindex::device::TopK);
extern "C" __global__ void metaindex_topk_sort(const __grid_constant__ metaindex::device::TopK);
extern "C" __global__ void metaindex_topk_merge(const __grid_constant__ metaindex::device::TopK,
                                                const __grid_constant__ int64_t, const __grid_constant__ int);

namespace metaindex::device {
namespace {

template <class Function>
const void* address(Function* kernel) {
    return reinterpret_cast<const void*>(kernel);
}

const void* of_codec(Codec codec, const void* float32, const void* float16, const void* bfloat16, const void* int8) {
    switch (codec) {
        case Codec::float32: return float32;
        case Codec::float16: return float16;
        case Codec::bfloat16: return bfloat16;
        case Codec::int8: return int8;
    }
    return nullptr;
}

#define METAINDEX_OF_CODEC(before, after)                                                                                      \
    of_codec(launch.codec, address(before##float32##after), address(before##float16##after), address(before##bfloat16##after), \
             address(before##int8##after))
#define METAINDEX_OF_MATRIX_CODEC(before, after)                                                       \
    of_codec(launch.codec, nullptr, address(before##float16##after), address(before##bfloat16##after), \
             address(before##int8##after))

const void* kernel_of(const Launch& launch) {
    switch (launch.kernel) {
        case Kernel::stream_2: return METAINDEX_OF_CODEC(metaindex_maxsim_stream_, _2);
        case Kernel::stream_4: return METAINDEX_OF_CODEC(metaindex_maxsim_stream_, _4);
        case Kernel::stream_8: return METAINDEX_OF_MATRIX_CODEC(metaindex_maxsim_stream_, _8);
        case Kernel::tile: return METAINDEX_OF_CODEC(metaindex_maxsim_tile_, );
        case Kernel::topk_slices: return address(metaindex_topk_slices);
        case Kernel::topk_start: return address(metaindex_topk_start);
        case Kernel::topk_count: return address(metaindex_topk_count);
        case Kernel::topk_collect: return address(metaindex_topk_collect);
        case Kernel::topk_sort: return address(metaindex_topk_sort);
        case Kernel::topk_merge: return address(metaindex_topk_merge);
    }
    return nullptr;
}

int attribute(cudaDeviceAttr name, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device));
    return value;
}

Card card(int device) {
    return {10 * attribute(cudaDevAttrComputeCapabilityMajor, device) + attribute(cudaDevAttrComputeCapabilityMinor, device),
            attribute(cudaDevAttrMultiProcessorCount, device), attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)};
}

int current_device() {
    int device = 0;
    check(cudaGetDevice(&device));
    return device;
}

}  // namespace

void run(const Launch& launch, const void* const* parameters, Stream stream) {
    const void* kernel = kernel_of(launch);
    constexpr int kSharedWithoutAsking = 48 * 1024;
    if (launch.shared_bytes > kSharedWithoutAsking) {
        // The most there is, so that no launch takes from another thread's what that has asked for.
        const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, current_device());
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    }
    check(cudaLaunchKernel(kernel, dim3(launch.blocks, launch.queries), dim3(launch.threads), const_cast<void**>(parameters),
                           static_cast<size_t>(launch.shared_bytes), static_cast<cudaStream_t>(stream)));
}

Card current_card() { return card(current_device()); }

bool cuda_built() { return true; }

std::vector<Card> cuda_cards() {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
        cudaGetLastError();
        return {};
    }
    std::vector<Card> cards;
    for (int device = 0; device < count; ++device) cards.push_back(card(device));
    return cards;
}

OnDevice::OnDevice(int device) {
    const int current = current_device();
    if (current == device) return;
    check(cudaSetDevice(device));
    before_ = current;
}

OnDevice::~OnDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace metaindex::device
