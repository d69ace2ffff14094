"""Matrices of the types that tensor cores take, and their products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_bfloat16(values: NDArray) -> NDArray[np.uint16]:
    """float32 numbers that bfloat16 holds exactly, as its bits."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def matrices(kind: str, *shapes: tuple[int, ...]) -> tuple[list[NDArray], list[NDArray]]:
    """Matrices of ``kind`` "f16", "bf16", "s8", "u8" or "tf32" as they lie in memory, and as float64. The numbers are small
    integers, or multiples of a power of two, so that sums are exact in whatever order."""
    random = np.random.default_rng(11)
    stored, values = [], []
    for shape in shapes:
        if kind in ("s8", "u8"):
            numbers = random.integers(*((-128, 128) if kind == "s8" else (0, 256)), shape)
            stored.append(numbers.astype(np.int8 if kind == "s8" else np.uint8))
        else:
            numbers = random.integers(-64, 65, shape) / 32
            exact = numbers.astype(np.float32)
            stored.append({"f16": exact.astype(np.float16), "bf16": to_bfloat16(exact), "tf32": exact}[kind])
        values.append(numbers.astype(np.float64))
    return stored, values
