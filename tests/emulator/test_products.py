"""wgmma for every layout that a descriptor can give, all widths, and operands from registers.

The layouts are those that the PTX ISA calls canonical, put down here as shapes and strides in units of 16 bytes.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import emulator
from tests.emulator.numbers import matrices

_PTX = """
.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 all[];
.visible .entry product(.param .u64 image, .param .u32 bytes, .param .u64 start, .param .u64 results, .param .u64 a,
    .param .u64 b)
{{
.reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %w<9>; .reg .b32 %d<{results}>; .reg .b32 %a<4>;
mov.u32 %r0, %tid.x; ld.param.u64 %w0, [image]; ld.param.u32 %r1, [bytes]; mul.lo.u32 %r2, %r0, 16;
ld.param.u64 %w6, [start];
FILL: setp.ge.u32 %p0, %r2, %r1; @%p0 bra FILLED;
cvt.u64.u32 %w1, %r2; add.u64 %w1, %w1, %w0; mov.u32 %r3, all; add.u32 %r3, %r3, %r2;
ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%w1]; st.shared.v4.u32 [%r3], {{%r4, %r5, %r6, %r7}};
add.u32 %r2, %r2, 2048; bra FILL;
FILLED: fence.proxy.async; bar.sync 0;
ld.param.u64 %w2, [results]; mad.wide.u32 %w2, %r0, {result_bytes}, %w2;
mad.wide.u32 %w6, %r0, 16, %w6;
ld.global.v4.u32 {{%a0, %a1, %a2, %a3}}, [%w6];
{loads}
ld.param.u64 %w3, [a]; ld.param.u64 %w4, [b];
mov.u64 %w5, all; shr.u64 %w5, %w5, 4; add.u64 %w3, %w3, %w5; add.u64 %w4, %w4, %w5;
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.{shape}.{types} {{{registers}}}, {a}, %w4, {flags};
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
{stores}
ret;
}}
"""
_RESULTS = {"f16": np.float32, "bf16": np.float32, "tf32": np.float32, "s8": np.int32, "u8": np.int32}
_DEPTH_BYTES = 32
_CODES = {0: 0, 128: 1, 64: 2, 32: 3}


def _run(image, types, kind, columns, a, b, flags, given=None, from_registers=None) -> np.ndarray:
    """The product of matrices in an image of shared memory, as [64, columns]."""
    depth = _DEPTH_BYTES // np.dtype({"f16": "u2", "bf16": "u2", "tf32": "f4", "s8": "i1", "u8": "u1"}[kind]).itemsize
    count = columns // 2
    results = np.zeros((128, count), _RESULTS[kind]) if given is None else given
    registers = [f"%d{i}" for i in range(count)]
    module = emulator.load(
        _PTX.format(
            results=count,
            result_bytes=4 * count,
            shape=f"m64n{columns}k{depth}",
            types=types,
            registers=", ".join(registers),
            flags=flags,
            a="%w3" if from_registers is None else "{%a0, %a1, %a2, %a3}",
            loads="\n".join(f"ld.global.b32 {register}, [%w2+{4 * i}];" for i, register in enumerate(registers)),
            stores="\n".join(f"st.global.b32 [%w2+{4 * i}], {register};" for i, register in enumerate(registers)),
        )
    )
    fragments = np.zeros((128, 4), np.uint32) if from_registers is None else from_registers
    module.launch("product", 1, 128, [image, image.nbytes, fragments, results, a, b], shared_bytes=image.nbytes)
    found = np.zeros((64, columns), results.dtype)
    for thread in range(128):
        for i in range(count):
            found[thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8, i // 4 * 8 + thread % 4 * 2 + i % 2] = results[
                thread, i
            ]
    return found


def _swizzled(address: np.ndarray, swizzle: int) -> np.ndarray:
    bits = {0: 0, 32: 1, 64: 2, 128: 3}[swizzle]
    return address ^ ((address >> 7 & (1 << bits) - 1) << 4)


def _place(image: np.ndarray, matrix: np.ndarray, start: int, swizzle: int, transposed: bool, leading: int, stride: int) -> int:
    """Write a matrix [rows, depth] to the image as a canonical layout has it; its descriptor, relative to the image."""
    rows, depth = matrix.shape
    per_chunk = 16 // matrix.itemsize
    width = max(1, swizzle // 16)
    for row, k in np.ndindex(rows, depth):
        if transposed:
            chunk, within, line = row // per_chunk, row % per_chunk, k
            if swizzle:  # ((T, width, m), (8, k)) : ((1, T, leading), (width T, stride))
                at = chunk % width * 16 + chunk // width * leading + line % 8 * width * 16 + line // 8 * stride
            else:  # ((T, 1, m), (8, k)) : ((1, T, stride), (T, leading))
                at = chunk * stride + line % 8 * 16 + line // 8 * leading
        else:
            chunk, within = k // per_chunk, k % per_chunk
            # ((8, m), (T, 2)) : ((width T, stride), (1, T)); without a swizzle the two chunks are `leading` apart
            at = row % 8 * width * 16 + row // 8 * stride + chunk * (16 if swizzle else leading)
        address = _swizzled(start + at + within * matrix.itemsize, swizzle)
        image[address : address + matrix.itemsize] = np.frombuffer(matrix[row, k].tobytes(), np.uint8)
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | _CODES[swizzle] << 62


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32", "s8", "u8"])
def test_k_major_layouts(kind, swizzle):
    depth = _DEPTH_BYTES // {"f16": 2, "bf16": 2, "tf32": 4}.get(kind, 1)
    (a, b), (x, y) = matrices(kind, (64, depth), (40 if kind not in ("s8", "u8") else 48, depth))
    image = np.zeros(1 << 15, np.uint8)
    # Distances (leading, stride) that differ from side to side, so that neither can be taken for the other.
    pattern = 8 * max(16, swizzle)
    first, second = ((16, pattern), (16, pattern + 1024)) if swizzle else ((2048, 128), (128, 256))
    start = 32 if swizzle > 32 else 0  # the second step within rows that are longer than one
    descriptors = _place(image, a, start, swizzle, False, *first), _place(image, b, 16384 + start, swizzle, False, *second)
    types = {"s8": "s32.s8.s8", "u8": "s32.u8.u8", "tf32": "f32.tf32.tf32"}.get(kind, f"f32.{kind}.{kind}")
    flags = {"s8": "0", "u8": "0", "tf32": "0, 1, 1"}.get(kind, "0, 1, 1, 0, 0")
    found = _run(image, types, kind, len(b), *descriptors, flags)
    np.testing.assert_array_equal(found, x @ y.T)


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_transposed_layouts(kind, swizzle):
    (a, b), (x, y) = matrices(kind, (64, 16), (128, 16))
    image = np.zeros(1 << 15, np.uint8)
    pattern = 8 * max(16, swizzle)
    repeats = 128 // (swizzle // 2) if swizzle else 0
    first = (2 * pattern, pattern) if swizzle else (1024, 128)
    second = (pattern, repeats * pattern) if swizzle else (128, 256)
    descriptors = _place(image, a, 0, swizzle, True, *first), _place(image, b, 16384, swizzle, True, *second)
    found = _run(image, f"f32.{kind}.{kind}", kind, 128, *descriptors, "0, 1, 1, 1, 1")
    np.testing.assert_array_equal(found, x @ y.T)


@pytest.mark.parametrize("columns", [8, 24, 104, 256])
def test_widths_signs_and_sums(columns):
    (a, b), (x, y) = matrices("f16", (64, 16), (columns, 16))
    image = np.zeros(1 << 16, np.uint8)
    descriptors = _place(image, a, 0, 128, False, 16, 1024), _place(image, b, 16384, 128, False, 16, 1024)
    given = np.arange(128 * columns // 2, dtype=np.float32).reshape(128, -1) % 97
    start = np.zeros((64, columns), np.float32)
    for thread in range(128):
        for i in range(columns // 2):
            start[thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8, i // 4 * 8 + thread % 4 * 2 + i % 2] = given[thread, i]
    found = _run(image, "f32.f16.f16", "f16", columns, *descriptors, "1, -1, 1, 0, 0", given)
    np.testing.assert_array_equal(found, start - x @ y.T)


def test_rows_from_registers():
    (a, b), (x, y) = matrices("bf16", (64, 16), (64, 16))
    image = np.zeros(1 << 15, np.uint8)
    descriptor = _place(image, b, 0, 128, False, 16, 1024)
    fragments = (
        np.array(
            [
                [
                    [a[w * 16 + g + 8 * (r % 2), 2 * t + 8 * (r // 2) + p] for r in range(4) for p in range(2)]
                    for g in range(8)
                    for t in range(4)
                ]
                for w in range(4)
            ],
            np.uint16,
        )
        .reshape(128, 8)
        .view(np.uint32)
    )
    found = _run(
        image, "f32.bf16.bf16", "bf16", 64, 0, descriptor, "0, 1, 1, 0", from_registers=np.ascontiguousarray(fragments)
    )
    np.testing.assert_array_equal(found, x @ y.T)


def test_patterns_that_start_off_their_boundary():
    """The base offset in the descriptor says where the pattern starts, in units of 128 bytes."""
    (a, b), (x, y) = matrices("f16", (64, 16), (16, 16))
    image = np.zeros(1 << 15, np.uint8)
    first = _place(image, a, 0, 128, False, 16, 1024)
    moved = np.zeros(4096, np.uint8)
    second = _place(moved, b, 0, 128, False, 16, 1024)
    image[16384 + 384 : 16384 + 384 + 4096] = moved
    second += (16384 + 384 >> 4) | 3 << 49
    np.testing.assert_array_equal(_run(image, "f32.f16.f16", "f16", 16, first, second, "0, 1, 1, 0, 0"), x @ y.T)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("wgmma.mma_async.sync.aligned.m64n12k16.f32.f16.f16", "no such shape"),
        ("wgmma.mma_async.sync.aligned.m64n8k32.f32.f16.f16", "not emulated"),
    ],
)
def test_shapes_that_there_are_not(instruction, message):
    ptx = f"""
    .version 8.0
    .target sm_90a
    .address_size 64
    .visible .entry one() {{
    .reg .b64 %w<3>; .reg .b32 %d<8>;
    {instruction} {{%d0, %d1, %d2, %d3}}, %w0, %w1, 0, 1, 1, 0, 0;
    ret;
    }}
    """
    with pytest.raises(emulator.EmulationError, match=message):
        emulator.load(ptx).launch("one", 1, 128, [])
