"""Runs a few lines of PTX on each element of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests import emulator

_HEAD = """
.version 8.0
.target sm_90a
.address_size 64
.visible .entry elementwise({parameters})
{{
.reg .b32 %thread;
.reg .b64 %offset, %address;
.reg .pred %p<8>;
.reg .b16 %h<8>;
.reg .b32 %r<8>;
.reg .b64 %w<8>;
{registers}
mov.u32 %thread, %tid.x;
{loads}
{body}
{store}
ret;
}}
"""


def elementwise(body: str, dtype: DTypeLike, *inputs: NDArray) -> NDArray:
    """What ``body`` leaves in ``%out``, for inputs in ``%a``, ``%b``, ``%c`` of up to 1024 elements. Of either only the bits
    count; 8-bit ones lie in 16-bit registers."""
    count = max(array.size for array in inputs)
    arrays = [np.ascontiguousarray(np.broadcast_to(array, count)) for array in inputs]
    out = np.zeros(count, dtype)
    names = ["out", *"abcd"[: len(arrays)]]
    registers = [f".reg .b{max(16, 8 * array.itemsize)} %{name};" for name, array in zip(names, [out, *arrays])]
    loads = [
        _address(name, array) + f"ld.global.b{8 * array.itemsize} %{name}, [%address];"
        for name, array in zip(names[1:], arrays)
    ]
    store = _address("out", out) + f"st.global.b{8 * out.itemsize} [%address], %out;"
    ptx = _HEAD.format(
        parameters=", ".join(f".param .u64 {name}" for name in names),
        registers="\n".join(registers),
        loads="\n".join(loads),
        body=body,
        store=store,
    )
    emulator.load(ptx).launch("elementwise", 1, count, [out, *arrays])
    return out


def _address(name: str, array: NDArray) -> str:
    return f"ld.param.u64 %address, [{name}];\nmad.wide.u32 %address, %thread, {array.itemsize}, %address;\n"
