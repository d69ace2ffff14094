"""The least time a case can take: bytes over the bandwidth, or operations over the peak, whichever is more."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.cases import Case
from metaindex.codecs import CODECS

Rates = dict[str, float]
"""Rates by name: ``*_gbs`` in 1e9 bytes a second, ``*_gops`` in 1e9 multiplications and additions a second."""

_OTHERS_BYTES = {"float8": lambda dim: dim + 4}  # a float32 scale per token, as our int8
_PEAKS = {"float8": "int8"}  # Hopper's matrix units are as fast on either, and torch has no plain product of float8


class Floor(NamedTuple):
    """Milliseconds: what reading takes, what arithmetic takes."""

    memory_ms: float
    arithmetic_ms: float

    @property
    def ms(self) -> float:
        return max(self)


def bytes_per_token(codec: str, dim: int) -> int:
    return CODECS[codec].bytes_per_token(dim) if codec in CODECS else _OTHERS_BYTES[codec](dim)


def peak_name(codec: str) -> str:
    """The rate that bounds the arithmetic on documents in ``codec``."""
    return f"{_PEAKS.get(codec, codec)}_gops"


def floor(case: Case, codec: str, rates: Rates) -> Floor:
    """For all of a case's document tokens, kept in ``codec``, at the ``rates`` of the card (see ``roofs``)."""
    nbytes = case.nbytes(bytes_per_token(codec, case.dim))
    return Floor(nbytes / rates["read_gbs"] / 1e6, case.operations / rates[peak_name(codec)] / 1e6)
