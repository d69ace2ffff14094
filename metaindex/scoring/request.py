"""What a scorer is asked: queries, the snapshot's levels, a budget, and what to answer with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec, Parts
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget


@dataclass(frozen=True, eq=False)
class Queries:
    """Encoded queries: ``parts`` [B, R, d] (scales [B, R]) and how many tokens each query has, int32 [B], 0..R."""

    parts: Parts
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, batch: slice | NDArray[np.int64]) -> Queries:
        scales = self.parts.scales
        return Queries(Parts(self.parts.codes[batch], None if scales is None else scales[batch]), self.lengths[batch])


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """Score a batch of queries at one budget.

    Without ``candidates`` every row of the snapshot is scored (the operation ``maxsim_scan``); with them (``maxsim_gather``)
    the rows int64 [B, C], or [1, C] for all queries alike; -1 marks an empty place.
    ``allow``, bool [rows], leaves out the rows where it is False: their score is -inf, and they are never among the top k.
    The removed documents of the snapshot are left out by ``allow`` too: the executor puts them in.

    ``k`` is None: ``score`` fills scores [B, rows] or [B, C].
    ``k`` is a number: it fills the k best, scores [B, k] falling and rows [B, k]; equal scores in the order of
    addition; where fewer than k are left, -inf and -1. A candidate that is repeated is one document.
    """

    queries: Queries
    snapshot: Snapshot
    codec: Codec
    dim: int
    budget: Budget
    candidates: NDArray[np.int64] | None = None
    allow: NDArray[np.bool_] | None = None
    k: int | None = None
    num_threads: int = 1

    @property
    def operation(self) -> str:
        return "maxsim_scan" if self.candidates is None else "maxsim_gather"

    @property
    def output_shape(self) -> tuple[int, int]:
        if self.k is not None:
            width = self.k
        else:
            width = self.snapshot.rows if self.candidates is None else self.candidates.shape[1]
        return len(self.queries), width
