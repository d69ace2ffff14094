// CUDA's errors as exceptions.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace metaindex::device {

inline void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // it has been told
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

}  // namespace metaindex::device
