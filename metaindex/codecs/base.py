"""What a codec is: how the numbers of a token are kept."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# A score sums up to some thousand times thousand products; up to this magnitude they stay within float32.
LARGEST_NUMBER = 1e15


class Parts(NamedTuple):
    """Encoded tokens: ``codes`` [..., d] in the codec's dtype and, for scaled codecs, ``scales`` [...] in float32."""

    codes: NDArray
    scales: NDArray[np.float32] | None


class Codec(Protocol):
    """Packs float32 tokens and unpacks them. These numpy functions are the law that compiled encoders are tested against."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> np.dtype:
        """The dtype of ``Parts.codes`` in memory."""

    @property
    def stored_dtype(self) -> str:
        """The name of that dtype in a safetensors header."""

    @property
    def scaled(self) -> bool:
        """Whether every token carries a float32 scale."""

    @property
    def limit(self) -> float:
        """The largest magnitude that is accepted: neither codes nor scores of such numbers overflow."""

    def bytes_per_token(self, dim: int) -> int: ...

    def encode(self, tokens: NDArray[np.float32]) -> Parts:
        """Tokens [..., d] in float32, finite and within ``limit``."""

    def decode(self, parts: Parts) -> NDArray[np.float32]:
        """The float32 values [..., d] that the codes stand for: what every scorer is held to."""
