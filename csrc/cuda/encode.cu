// float32 into the codecs, bit for bit as the numpy codecs do.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "parameters.hpp"

using namespace metaindex::device;

namespace {

// Each thread one number after another; all of them of all tokens are one row.
template <class Convert>
__device__ __forceinline__ void convert_all(const Encode& p, Convert convert) {
    const int64_t numbers = p.count * p.dim, stride = int64_t{gridDim.x} * blockDim.x;
    auto* codes = static_cast<uint16_t*>(p.codes);
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < numbers; i += stride) codes[i] = convert(p.tokens[i]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kEncodeThreads) metaindex_encode_float16(const __grid_constant__ Encode p) {
    convert_all(p, [](float number) { return __half_as_ushort(__float2half_rn(number)); });
}

extern "C" __global__ void __launch_bounds__(kEncodeThreads) metaindex_encode_bfloat16(const __grid_constant__ Encode p) {
    convert_all(p, [](float number) { return __bfloat16_as_ushort(__float2bfloat16_rn(number)); });
}

// Each warp one token after another.
extern "C" __global__ void __launch_bounds__(kEncodeThreads) metaindex_encode_int8(const __grid_constant__ Encode p) {
    const int lane = static_cast<int>(threadIdx.x % 32u);
    const int64_t stride = int64_t{gridDim.x} * (kEncodeThreads / 32);
    for (int64_t token = int64_t{blockIdx.x} * (kEncodeThreads / 32) + threadIdx.x / 32u; token < p.count; token += stride) {
        const float* numbers = p.tokens + token * p.dim;
        auto* codes = static_cast<int8_t*>(p.codes) + token * p.dim;
        float most = 0;
        for (int i = lane; i < p.dim; i += 32) most = fmaxf(most, fabsf(numbers[i]));
#pragma unroll
        for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFF, most, step));
        const float scale = __fdiv_rn(most, 127.0f);
        if (lane == 0) p.scales[token] = scale;
        for (int i = lane; i < p.dim; i += 32) {
            // A scale that is 0, of a zero token or underflown, makes zeros.
            const float code = fminf(fmaxf(__fdiv_rn(numbers[i], scale == 0 ? 1.0f : scale), -127.0f), 127.0f);
            codes[i] = scale == 0 ? static_cast<int8_t>(0) : static_cast<int8_t>(__float2int_rn(code));
        }
    }
}
