"""ldmatrix, mma.sync and cp.async: fragments one by one, and whole products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import emulator
from tests.emulator.numbers import matrices

_SOURCE = Path(__file__).with_name("snippets") / "mma.cu"
_RESULTS = {"f16": np.float32, "bf16": np.float32, "s8": np.int32}


@pytest.mark.parametrize("kind", _RESULTS)
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (70, 100, 144), (1, 3, 32)])
def test_products_by_mma(cuda, kind, m, n, k):
    (a, b), (x, y) = matrices(kind, (m, k), (n, k))
    c = np.full((m, n), -77, _RESULTS[kind])
    grid = (-(-n // 64), -(-m // 64))
    cuda(_SOURCE.read_text()).launch(f"gemm_{kind}", grid, 128, [a, b, c, m, n, k * a.itemsize])
    np.testing.assert_array_equal(c, x @ y.T)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("NO_WAIT", "reads shared memory at .* while the copy issued at line .* is writing it"),
        ("NO_BARRIER", "race: reads shared memory|while the copy issued"),
        ("NO_SECOND_BARRIER", "race: writes shared memory|while the copy issued|race: reads"),
    ],
)
def test_missing_synchronisation_is_found(cuda, bug, message):
    (a, b), _ = matrices("f16", (64, 256), (64, 256))
    c = np.zeros((64, 64), np.float32)
    module = cuda(_SOURCE.read_text(), "80", f"-D{bug}")
    for seed in range(3):
        with pytest.raises(emulator.EmulationError, match=f"(?s){message}.*mma.cu|kernel.cu"):
            module.launch("gemm_f16", 1, 128, [a, b, c, 64, 64, 512], seed=seed)


_FRAGMENT = """
.version 8.0
.target sm_90a
.address_size 64
.visible .entry fragment(.param .u64 a, .param .u64 b, .param .u64 c)
{{
.reg .b32 %t; .reg .b64 %w<4>; .reg .b32 %a<8>; .reg .b32 %b<4>; .reg .b32 %c<4>;
mov.u32 %t, %tid.x;
ld.param.u64 %w0, [a]; mad.wide.u32 %w0, %t, {a_bytes}, %w0;
ld.param.u64 %w1, [b]; mad.wide.u32 %w1, %t, {b_bytes}, %w1;
ld.param.u64 %w2, [c]; mad.wide.u32 %w2, %t, 16, %w2;
{loads}
ld.global.v4.b32 {{%c0, %c1, %c2, %c3}}, [%w2];
mma.sync.aligned.{shape}.row.col.{types} {{%c0, %c1, %c2, %c3}}, {{{a}}}, {{{b}}}, {{%c0, %c1, %c2, %c3}};
st.global.v4.b32 [%w2], {{%c0, %c1, %c2, %c3}};
ret;
}}
"""


def _names(letter: str, count: int) -> str:
    return ", ".join(f"%{letter}{i}" for i in range(count))


@pytest.mark.parametrize(
    ("shape", "types", "kind", "k"),
    [
        ("m16n8k8", "f32.f16.f16.f32", "f16", 8),
        ("m16n8k16", "f32.bf16.bf16.f32", "bf16", 16),
        ("m16n8k4", "f32.tf32.tf32.f32", "tf32", 4),
        ("m16n8k8", "f32.tf32.tf32.f32", "tf32", 8),
        ("m16n8k16", "s32.s8.s8.s32", "s8", 16),
        ("m16n8k32", "s32.u8.u8.s32", "u8", 32),
    ],
)
def test_fragments(shape, types, kind, k):
    """The layouts, written down once more: lane 4g + t holds rows g and g + 8 of A, column g of B, of C pairs of columns 2t."""
    (a, b), (x, y) = matrices(kind, (16, k), (8, k))
    per_register = 4 // a.itemsize
    lane_a = [
        [
            a[g + 8 * (r % 2), t * per_register + 4 * per_register * (r // 2) + p]
            for r in range(16 * k // 32 // per_register)
            for p in range(per_register)
        ]
        for g in range(8)
        for t in range(4)
    ]
    lane_b = [
        [
            b[g, t * per_register + 4 * per_register * r + p]
            for r in range(8 * k // 32 // per_register)
            for p in range(per_register)
        ]
        for g in range(8)
        for t in range(4)
    ]
    given_a, given_b = np.array(lane_a, a.dtype), np.array(lane_b, b.dtype)
    c = np.arange(128, dtype=np.int32 if kind in ("s8", "u8") else np.float32).reshape(32, 4)
    start = c.copy()
    registers_a, registers_b = given_a.nbytes // 128, given_b.nbytes // 128
    loads = [f"ld.global.b32 %a{i}, [%w0+{4 * i}];" for i in range(registers_a)]
    loads += [f"ld.global.b32 %b{i}, [%w1+{4 * i}];" for i in range(registers_b)]
    ptx = _FRAGMENT.format(
        a_bytes=given_a.nbytes // 32,
        b_bytes=given_b.nbytes // 32,
        loads="\n".join(loads),
        shape=shape,
        types=types,
        a=_names("a", registers_a),
        b=_names("b", registers_b),
    )
    emulator.load(ptx).launch("fragment", 1, 32, [given_a, given_b, c])
    product = x @ y.T
    expected = [[product[g + 8 * (i // 2), 2 * t + i % 2] for i in range(4)] for g in range(8) for t in range(4)]
    np.testing.assert_array_equal(c, start + np.array(expected))


def test_transposed_and_stored_matrices(cuda):
    module = cuda(
        """
        extern "C" __global__ void turn(const unsigned short* from, unsigned short* to) {
            __shared__ __align__(16) unsigned short in[64], out[64];
            in[threadIdx.x] = from[threadIdx.x];
            in[threadIdx.x + 32] = from[threadIdx.x + 32];
            __syncwarp();
            unsigned address = __cvta_generic_to_shared(in) + threadIdx.x % 8 * 16, pair;
            asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(pair) : "r"(address) : "memory");
            address = __cvta_generic_to_shared(out) + threadIdx.x % 8 * 16;
            asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(address), "r"(pair) : "memory");
            __syncwarp();
            to[threadIdx.x] = out[threadIdx.x];
            to[threadIdx.x + 32] = out[threadIdx.x + 32];
        }
    """,
        "90a",
    )
    a, b = np.arange(64, dtype=np.uint16).reshape(8, 8), np.zeros((8, 8), np.uint16)
    module.launch("turn", 1, 32, [a, b])
    np.testing.assert_array_equal(b, a.T)
