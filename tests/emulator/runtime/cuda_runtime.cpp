// Stands in for the CUDA runtime and the driver, so that host code runs as it is where there is no GPU: what it launches goes
// to a function of the test's. Only what the project calls is here; anything else is an undefined symbol when a library is
// loaded.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

struct Function {
    std::string name;
    int most_dynamic_shared = 48 * 1024;  // until the host asks for more
};

struct Configuration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};

using Launch = int (*)(const char* name, const uint32_t* grid, const uint32_t* block, void** args, uint64_t shared);
using Encode = int (*)(void* map, int type, uint32_t rank, uint64_t address, const uint64_t* dims, const uint64_t* strides,
                       const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int fill);

struct Device {
    Launch launch = nullptr;
    Encode encode = nullptr;
    int capability = 0, multiprocessors = 1, blocks_per_multiprocessor = 1;
};

constexpr int kMostShared = 227 * 1024;

// Registration runs before main and before any static of this file would be made.
std::map<const void*, Function>& functions() {
    static auto* const found = new std::map<const void*, Function>;
    return *found;
}

Device device;
std::vector<Configuration> configurations;
cudaError_t last_error = cudaSuccess;

cudaError_t noted(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** args, size_t shared) {
    const auto found = functions().find(function);
    if (found == functions().end()) return noted(cudaErrorInvalidDeviceFunction);
    if (shared > static_cast<size_t>(found->second.most_dynamic_shared)) return noted(cudaErrorInvalidValue);
    const uint32_t grid_size[] = {grid.x, grid.y, grid.z}, block_size[] = {block.x, block.y, block.z};
    const int failed = device.launch(found->second.name.c_str(), grid_size, block_size, args, shared);
    return noted(failed ? cudaErrorLaunchFailure : cudaSuccess);
}

CUresult encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address, const cuuint64_t* dims,
                const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps, CUtensorMapInterleave interleave,
                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
    const int failed = device.encode(map, type, rank, reinterpret_cast<uintptr_t>(address), dims, strides, box, steps,
                                     interleave, swizzle, fill);
    return failed ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

}  // namespace

extern "C" {

// For the test.
void emulated_device(Launch launch, Encode encode, int capability, int multiprocessors, int blocks_per_multiprocessor) {
    device = {launch, encode, capability, multiprocessors, blocks_per_multiprocessor};
}

// What nvcc's host code calls.
void** __cudaRegisterFatBinary(void*) { return new void*(nullptr); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void** handle) { delete handle; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
    functions()[host] = {name};
}
char __cudaInitModule(void**) { return 1; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configurations.push_back({grid, block, shared, stream});
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    const Configuration& last = configurations.back();
    *grid = last.grid;
    *block = last.block;
    *shared = last.shared;
    *static_cast<cudaStream_t*>(stream) = last.stream;
    configurations.pop_back();
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
    *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** args, size_t shared, cudaStream_t) {
    return launch(kernel, grid, block, args, shared);
}

// The runtime's own functions.
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** args, size_t shared, cudaStream_t) {
    return launch(function, grid, block, args, shared);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** args) {
    return launch(function, config->gridDim, config->blockDim, args, config->dynamicSmemBytes);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    const auto found = functions().find(function);
    if (found == functions().end()) return noted(cudaErrorInvalidDeviceFunction);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > kMostShared) return noted(cudaErrorInvalidValue);
    found->second.most_dynamic_shared = value;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int, size_t) {
    if (!functions().count(function)) return noted(cudaErrorInvalidDeviceFunction);
    *blocks = device.blocks_per_multiprocessor;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* number) {
    *number = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) { return noted(number == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = device.multiprocessors; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = device.capability / 10; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = device.capability % 10; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kMostShared; return cudaSuccess;
        default: return noted(cudaErrorInvalidValue);
    }
}
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInvalidDeviceFunction: return "invalid device function";
        case cudaErrorLaunchFailure: return "unspecified launch failure";
        default: return "unknown error";
    }
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** entry, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* status) {
    const bool known = std::string(symbol) == "cuTensorMapEncodeTiled";
    *entry = known ? reinterpret_cast<void*>(&encode) : nullptr;
    *status = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

}  // extern "C"
