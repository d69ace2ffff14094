"""Shared memory that threads use with nothing that orders them, found whatever the order was; and what does order them."""

from __future__ import annotations

import numpy as np
import pytest

from tests import emulator

_KERNEL = """
#include <cstdint>
__device__ uint32_t shared_address(const void* pointer) {{ return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }}
__device__ void init(uint64_t* barrier, int count) {{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}}
__device__ void arrive(uint64_t* barrier) {{
    asm volatile("{{ .reg .b64 t; mbarrier.arrive.shared.b64 t, [%0]; }}" ::"r"(shared_address(barrier)) : "memory");
}}
__device__ void wait(uint64_t* barrier, int parity) {{
    asm volatile("{{ .reg .pred p; AGAIN: mbarrier.try_wait.parity.shared.b64 p, [%0], %1; @!p bra AGAIN; }}"
        ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}}
extern "C" __global__ void kernel(volatile int* out) {{
    __shared__ int data[128];
    __shared__ uint64_t barrier;
    const int i = threadIdx.x, lane = i % 32, warp = i / 32;
    (void)lane, (void)warp, (void)barrier;
    {body}
}}
"""

_ORDERED = {
    "a barrier": "data[i] = i; __syncthreads(); out[i] = data[127 - i];",
    "meeting of a warp": "data[i] = i; __syncwarp(); out[i] = data[i ^ 1];",
    "a shuffle": "data[i] = i; int x = __shfl_xor_sync(~0u, i, 1); out[i] = data[x];",
    "a barrier of two warps": """
        data[i] = i; asm volatile("bar.sync %0, 64;" ::"r"(1 + i / 64) : "memory"); out[i] = data[i ^ 32];
    """,
    "an mbarrier": """
        if (i == 0) init(&barrier, 64);
        __syncthreads();
        if (i < 64) { data[i] = i; arrive(&barrier); } else { wait(&barrier, 0); out[i] = data[i - 64]; }
    """,
    "a leader after its warp has met": """
        if (i == 0) init(&barrier, 2);
        __syncthreads();
        if (i < 64) { data[i] = i; __syncwarp(); if (lane == 0) arrive(&barrier); }
        else { wait(&barrier, 0); out[i] = data[i - 64]; }
    """,
    "two barriers between rounds": """
        for (int round = 0; round < 3; ++round) { data[i] = round; __syncthreads(); out[i] = data[127 - i]; __syncthreads(); }
    """,
    "an atomic counter": """
        if (i == 0) data[127] = 0;
        __syncthreads();
        if (i == 0) { data[0] = 5; __threadfence_block(); atomicAdd(&data[127], 1); }
        if (i == 64) { while (atomicAdd(&data[127], 0) == 0) {} out[i] = data[0]; }
    """,
    "two writers of the same": "data[i / 2] = i / 2; __syncthreads(); out[i] = data[i / 4];",
    "reading alone": "if (i == 0) data[0] = 3; __syncthreads(); out[i] = data[0];",
}

_RACES = {
    "no barrier": "data[i] = i; out[i] = data[127 - i];",
    "no meeting of a warp": "data[i] = i; out[i] = data[i ^ 1];",
    "a meeting of other lanes": "data[i] = i; if (lane < 16) __syncwarp(0xFFFF); out[i] = data[i ^ 16];",
    "another pair's barrier": """
        data[i] = i; asm volatile("bar.sync %0, 64;" ::"r"(1 + i / 64) : "memory"); out[i] = data[i ^ 64];
    """,
    "one barrier between rounds": """
        for (int round = 0; round < 3; ++round) { data[i] = round; __syncthreads(); out[i] = data[127 - i]; }
    """,
    "two writers": "data[0] = i; __syncthreads(); out[i] = data[0];",
    "a leader before its warp has met": """
        if (i == 0) init(&barrier, 2);
        __syncthreads();
        if (i < 64) { data[i] = i; if (lane == 0) arrive(&barrier); }
        else { wait(&barrier, 0); out[i] = data[i - 64]; }
    """,
    "a write beside many that read": "if (i == 0) data[0] = 1; __syncthreads(); out[i] = data[0]; if (i == 127) data[0] = 2;",
    "an mbarrier that nobody has announced": "if (i == 0) init(&barrier, 128); if (i == 0 || warp > 0) arrive(&barrier);",
    "plain beside atomic": "if (i == 0) data[0] = 0; __syncthreads(); if (i == 64) data[0] = 7; else atomicAdd(&data[0], 1);",
}


@pytest.mark.parametrize("name", _ORDERED)
def test_no_race(cuda, name):
    module = cuda(_KERNEL.format(body=_ORDERED[name]), "90a")
    for seed in range(4):
        module.launch("kernel", 1, 128, [np.zeros(128, np.int32)], seed=seed)


@pytest.mark.parametrize("name", _RACES)
def test_race(cuda, name):
    module = cuda(_KERNEL.format(body=_RACES[name]), "90a")
    for seed in range(4):
        with pytest.raises(emulator.EmulationError, match=r"race: |there is no mbarrier"):
            module.launch("kernel", 1, 128, [np.zeros(128, np.int32)], seed=seed)
