"""int8 with one scale per token: symmetric, so zero stays zero and an inner product needs no correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs.base import LARGEST_NUMBER, Parts


@dataclass(frozen=True)
class Int8:
    """``value = code * scale`` with ``scale = max(|token|) / 127``: one byte a number and four for the token's scale."""

    name: str = "int8"
    dtype: np.dtype = np.dtype(np.int8)
    stored_dtype: str = "I8"
    scaled: bool = True
    limit: float = LARGEST_NUMBER

    def bytes_per_token(self, dim: int) -> int:
        return dim + 4

    def encode(self, tokens: NDArray[np.float32]) -> Parts:
        tokens = np.asarray(tokens, dtype=np.float32)
        scales = np.abs(tokens).max(axis=-1) / np.float32(127)
        # A token whose scale underflows to zero decodes to zero; dividing by one keeps its codes zero too.
        divisors = np.where(scales > 0, scales, np.float32(1))[..., None]
        codes = np.rint(np.clip(tokens / divisors, -127, 127)).astype(np.int8)
        codes[scales == 0] = 0
        return Parts(codes, scales)

    def decode(self, parts: Parts) -> NDArray[np.float32]:
        assert parts.scales is not None
        return parts.codes.astype(np.float32) * parts.scales[..., None]
