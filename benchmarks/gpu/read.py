"""A Triton kernel that does nothing but read: how fast memory can be."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK, UNROLL, WARPS = 2048, 4, 4  # 16 bytes for each of 128 threads, four times before the first sum


@triton.jit
def _read_kernel(values, sums, rounds, BLOCK: tl.constexpr, UNROLL: tl.constexpr):
    at = values + tl.program_id(0).to(tl.int64) * BLOCK * UNROLL + tl.arange(0, BLOCK)
    stride = tl.num_programs(0).to(tl.int64) * BLOCK * UNROLL
    total = tl.zeros([BLOCK], tl.int32)
    for _round in range(rounds):
        for part in tl.static_range(UNROLL):
            total += tl.load(at + part * BLOCK)
        at += stride
    tl.store(sums + tl.program_id(0), tl.sum(total))


def read(values: Tensor, sums: Tensor, programs: int) -> int:
    """Read int32 ``values`` [n] by ``programs`` programs; int32 ``sums`` [programs] receives what keeps the reads from being
    left out. Returns how many bytes were read: n down to a whole number of rounds."""
    each = programs * BLOCK * UNROLL
    rounds = len(values) // each
    _read_kernel[(programs,)](values, sums, rounds, BLOCK=BLOCK, UNROLL=UNROLL, num_warps=WARPS)
    return 4 * rounds * each
