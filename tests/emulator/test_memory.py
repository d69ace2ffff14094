"""Accesses to every kind of memory, and those that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests import emulator

_COPY = """
#include <cstdint>
extern "C" __global__ void copy(const float* from, float* to, int count, int shift) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = from[i + shift];
}
extern "C" __global__ void vectors(const float4* from, float4* to) { to[threadIdx.x] = from[threadIdx.x ^ 1]; }
extern "C" __global__ void through_table(const int64_t* table, float* to) {
    to[threadIdx.x] = reinterpret_cast<const float*>(table[threadIdx.x])[threadIdx.x];
}
__constant__ int kWeights[4] = {3, 1, 4, 1};
__device__ int counter = 7;
extern "C" __global__ void variables(int* to) {
    to[threadIdx.x] = kWeights[threadIdx.x % 4];
    atomicAdd(&counter, 1);
    __syncthreads();
    if (threadIdx.x == 0) to[0] = counter;
}
struct Options { double scale; signed char bias; short limits[3]; };
extern "C" __global__ void structs(Options options, double* to) {
    to[threadIdx.x] = options.scale * threadIdx.x + options.bias + options.limits[threadIdx.x % 3];
}
extern "C" __global__ void local(const int* order, int* to) {
    int kept[8];
    for (int i = 0; i < 8; ++i) kept[order[i]] = i * 10 + threadIdx.x;
    int sum = 0;
    for (int i = 0; i < 8; ++i) sum = sum * 3 + kept[i];
    to[threadIdx.x] = sum;
}
extern "C" __global__ void atomics(unsigned* sum, int* least, unsigned long long* most, float* real, int* swapped) {
    __shared__ int inside;
    if (threadIdx.x == 0) inside = 0;
    __syncthreads();
    atomicAdd(sum, threadIdx.x);
    atomicMin(least, -(int)threadIdx.x);
    atomicMax(most, (unsigned long long)threadIdx.x << 33);
    atomicAdd(real, 0.5f);
    atomicAdd(&inside, 2);
    if (atomicCAS(swapped, 0, threadIdx.x + 1) == 0) swapped[1] += 1;
    __syncthreads();
    if (threadIdx.x == 0) swapped[2] = inside;
}
__device__ int behind_pointer(const int* pointer, int i) { return pointer[i]; }
extern "C" __global__ void generic(const int* global, int* to, int which) {
    __shared__ int shared[64];
    shared[threadIdx.x] = 1000 + threadIdx.x;
    __syncthreads();
    const int* from = which > 0 ? shared : global;
    to[threadIdx.x] = behind_pointer(from, 63 - threadIdx.x);
}
"""


@pytest.fixture
def module(cuda):
    return cuda(_COPY)


def test_each_element_is_copied(module):
    a, b = np.arange(1000, dtype=np.float32), np.full(1000, np.nan, np.float32)
    module.launch("copy", 4, 256, [a, b, 1000, 0])
    np.testing.assert_array_equal(a, b)


def test_vectors_structs_and_variables(module):
    a, b = np.arange(128, dtype=np.float32).reshape(32, 4), np.zeros((32, 4), np.float32)
    module.launch("vectors", 1, 32, [a, b])
    np.testing.assert_array_equal(b, a.reshape(16, 2, 4)[:, ::-1].reshape(32, 4))
    out = np.zeros(9)
    options = np.zeros(
        1,
        np.dtype(
            {"names": ["scale", "bias", "limits"], "formats": ["f8", "i1", ("i2", 3)], "offsets": [0, 8, 10], "itemsize": 16}
        ),
    )
    options["scale"], options["bias"], options["limits"] = 0.5, -2, [10, 20, -30]
    module.launch("structs", 1, 9, [options.tobytes(), out])
    np.testing.assert_array_equal(out, 0.5 * np.arange(9) - 2 + np.tile([10, 20, -30], 3))
    found = np.zeros(8, np.int32)
    module.launch("variables", 1, 8, [found])
    np.testing.assert_array_equal(found, [15, 1, 4, 1, 3, 1, 4, 1])


def test_addresses_in_tables(module):
    rows = [np.arange(8, dtype=np.float32) + 100 * i for i in range(8)]
    table, out = np.array([row.ctypes.data for row in rows], np.int64), np.zeros(8, np.float32)
    module.launch("through_table", 1, 8, [table, out], memory=rows)
    np.testing.assert_array_equal(out, 101 * np.arange(8))
    with pytest.raises(emulator.EmulationError, match="which no buffer holds"):
        module.launch("through_table", 1, 8, [table, out], memory=rows[:-1])


def test_local_memory_is_each_threads_own(module):
    order, out = np.array([3, 1, 4, 0, 5, 7, 2, 6], np.int32), np.zeros(40, np.int32)
    module.launch("local", 1, 40, [order, out])
    kept = np.argsort(order)[None] * 10 + np.arange(40)[:, None]
    np.testing.assert_array_equal(out, kept @ 3 ** np.arange(8)[::-1])


def test_atomics(module):
    sums, least, most = np.zeros(1, np.uint32), np.zeros(1, np.int32), np.zeros(1, np.uint64)
    real, swapped = np.zeros(1, np.float32), np.zeros(3, np.int32)
    module.launch("atomics", 3, 96, [sums, least, most, real, swapped])
    assert (sums, least, most, real) == (3 * 95 * 48, -95, 95 << 33, 144)
    assert swapped[0] in range(1, 97)
    np.testing.assert_array_equal(swapped[1:], [1, 192])


def test_generic_addresses(module):
    a, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    for which in (0, 1):
        module.launch("generic", 1, 64, [a, out, which])
        np.testing.assert_array_equal(out, (a + 1000 * which)[::-1])


def test_accesses_outside_of_buffers(module):
    a, b = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    with pytest.raises(
        emulator.EmulationError, match=r"(?s)reads 4 bytes .* 256 bytes into argument 0, 256 bytes.*thread 63.*kernel.cu:5"
    ):
        module.launch("copy", 1, 64, [a[:64], b, 64, 1])
    with pytest.raises(emulator.EmulationError, match=r"reads 4 bytes .* 4 bytes before argument 0"):
        module.launch("copy", 1, 64, [a, b, 64, -1])
    b.flags.writeable = False
    with pytest.raises(emulator.EmulationError, match="writes argument 1, which is read-only"):
        module.launch("copy", 1, 64, [a, b, 64, 0])


def test_misaligned_accesses(module):
    a, b = np.zeros(33, np.float32), np.zeros(32, np.float32)
    start = 1 if a.ctypes.data % 16 == 0 else 0
    with pytest.raises(emulator.EmulationError, match="no multiple of 16"):
        module.launch("vectors", 1, 8, [a[start : start + 32], b])


def test_shared_memory_that_nobody_wrote_is_poison(cuda):
    module = cuda("""
        extern "C" __global__ void sum(const float* a, float* out, int count) {
            __shared__ float all[64];
            if (threadIdx.x < count) all[threadIdx.x] = a[threadIdx.x];
            __syncthreads();
            float sum = 0;
            for (int i = 0; i < 64; ++i) sum += all[i];
            out[threadIdx.x] = sum;
        }
        extern "C" __global__ void beyond(float* out, int at) {
            __shared__ float first[8];
            __shared__ float second[8];
            if (threadIdx.x < 8) first[threadIdx.x] = second[threadIdx.x] = 0;
            __syncthreads();
            out[threadIdx.x] = first[at] + second[0];
        }
        extern __shared__ float dynamic[];
        extern "C" __global__ void dynamically(float* out, int at) {
            dynamic[threadIdx.x] = 1;
            __syncthreads();
            out[threadIdx.x] = dynamic[at];
        }
    """)
    a, out = np.ones(64, np.float32), np.zeros(64, np.float32)
    module.launch("sum", 1, 64, [a, out, 64])
    assert (out == 64).all()
    module.launch("sum", 1, 64, [a, out, 63])
    assert np.isnan(out).all()
    module.launch("beyond", 1, 32, [out, 7])
    with pytest.raises(emulator.EmulationError, match="between two variables"):
        module.launch("beyond", 1, 32, [out, 8])
    module.launch("dynamically", 1, 32, [out, 31], shared_bytes=128)
    with pytest.raises(emulator.EmulationError, match="accesses 4 bytes of shared memory"):
        module.launch("dynamically", 1, 32, [out, 32], shared_bytes=128)


def test_arguments_are_checked(module):
    with pytest.raises(TypeError, match="takes 4 arguments, not 1"):
        module.launch("copy", 1, 32, [np.zeros(4)])
    with pytest.raises(TypeError, match="has 8 bytes, not 4"):
        module.launch("copy", 1, 32, [np.zeros(4), np.zeros(4), np.zeros(4), 0])
    with pytest.raises(KeyError, match="no kernel 'absent'"):
        module.launch("absent", 1, 32, [])
    with pytest.raises(emulator.EmulationError, match="1 to 1024 threads"):
        module.launch("vectors", 1, 2000, [np.zeros(4), np.zeros(4)])
