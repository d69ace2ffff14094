"""float32, float16 and bfloat16: each number rounded to nearest even, no scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs.base import LARGEST_NUMBER, Parts


@dataclass(frozen=True)
class Float32:
    """Kept as it is: four bytes a number."""

    name: str = "float32"
    dtype: np.dtype = np.dtype(np.float32)
    stored_dtype: str = "F32"
    scaled: bool = False
    limit: float = LARGEST_NUMBER

    def bytes_per_token(self, dim: int) -> int:
        return 4 * dim

    def encode(self, tokens: NDArray[np.float32]) -> Parts:
        return Parts(np.ascontiguousarray(tokens, dtype=np.float32), None)

    def decode(self, parts: Parts) -> NDArray[np.float32]:
        return np.asarray(parts.codes, dtype=np.float32)


@dataclass(frozen=True)
class Float16:
    """IEEE half precision: two bytes a number, 11 bits of precision, magnitudes up to 65504."""

    name: str = "float16"
    dtype: np.dtype = np.dtype(np.float16)
    stored_dtype: str = "F16"
    scaled: bool = False
    limit: float = float(np.finfo(np.float16).max)

    def bytes_per_token(self, dim: int) -> int:
        return 2 * dim

    def encode(self, tokens: NDArray[np.float32]) -> Parts:
        return Parts(np.ascontiguousarray(tokens, dtype=np.float16), None)

    def decode(self, parts: Parts) -> NDArray[np.float32]:
        return parts.codes.astype(np.float32)


@dataclass(frozen=True)
class BFloat16:
    """The upper half of a float32: two bytes a number, 8 bits of precision. numpy has no such dtype, so codes are uint16."""

    name: str = "bfloat16"
    dtype: np.dtype = np.dtype(np.uint16)
    stored_dtype: str = "BF16"
    scaled: bool = False
    limit: float = LARGEST_NUMBER

    def bytes_per_token(self, dim: int) -> int:
        return 2 * dim

    def encode(self, tokens: NDArray[np.float32]) -> Parts:
        bits = np.ascontiguousarray(tokens, dtype=np.float32).view(np.uint32)
        # Adding half of the dropped part, and one less when the kept part is even, rounds ties to even.
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return Parts((rounded >> np.uint32(16)).astype(np.uint16), None)

    def decode(self, parts: Parts) -> NDArray[np.float32]:
        return (parts.codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
