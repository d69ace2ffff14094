"""Host code that launches kernels, without a GPU."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest

from tests import emulator
from tests.emulator.host_code import HostCode

_SOURCE = """
#include <cuda_runtime.h>
__global__ void scale(float* numbers, int count, float by) {
    extern __shared__ float staged[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    staged[threadIdx.x] = i < count ? numbers[i] * by : 0;
    __syncthreads();
    if (i < count) numbers[i] = staged[threadIdx.x];
}
extern "C" const char* scale_all(float* numbers, int count, float by, int shared, bool allowed) {
    int processors = 0;
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
    if (allowed) cudaFuncSetAttribute(scale, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    scale<<<processors * 2, 32, shared>>>(numbers, count, by);
    return cudaGetErrorString(cudaGetLastError());
}
"""


@pytest.fixture
def code(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine to compile CUDA C++ with")
    source = tmp_path / "scale.cu"
    source.write_text(_SOURCE)
    return HostCode("scale", [source], architectures=("80", "90a"))


def test_launches_reach_the_emulator(code):
    scale_all = code.library().scale_all
    scale_all.restype = ctypes.c_char_p
    numbers = np.arange(100, dtype=np.float32)
    pointer = ctypes.c_void_p(numbers.ctypes.data)
    for architecture in ("80", "90a"):
        with code.device(architecture, [numbers], multiprocessors=2):
            assert scale_all(pointer, 100, ctypes.c_float(2), 128, False) == b"no error"
    np.testing.assert_array_equal(numbers, 4 * np.arange(100))
    assert [where for _, *where in code.launches] == [[(4, 1, 1), (32, 1, 1)]] * 2
    with code.device("80", [numbers]):
        assert scale_all(pointer, 100, ctypes.c_float(2), 64 * 1024, False) == b"invalid argument"
        assert scale_all(pointer, 100, ctypes.c_float(0.5), 64 * 1024, True) == b"no error"
    np.testing.assert_array_equal(numbers, 2 * np.arange(100))
    with pytest.raises(emulator.EmulationError, match="which no buffer holds"), code.device("80", [numbers]):
        assert scale_all(pointer, 101, ctypes.c_float(2), 128, False) == b"unspecified launch failure"
