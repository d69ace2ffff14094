"""What a scorer is asked: queries, the snapshot's levels, a budget, and what to answer with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec, Parts, compiled
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget


@dataclass(frozen=True, eq=False)
class Queries:
    """Encoded queries: ``parts`` [B, R, d] (scales [B, R]) and how many tokens each query has, int32 [B], 0..R.

    ``parts`` are in the codec of the first document tokens. ``others``: the same queries in the codecs of other bands and of
    the early copy, by name.
    """

    parts: Parts
    lengths: NDArray[np.int32]
    others: Mapping[str, Parts] = field(default_factory=dict)

    @classmethod
    def of(cls, tokens: NDArray[np.float32], lengths: NDArray[np.int32], schema: Schema) -> Queries:
        """Queries float32 [B, R, d] in all codecs that they meet in an index of ``schema``."""
        first, *others = schema.bands.codecs
        if schema.copy_codec is not None:
            others.append(schema.copy_codec)
        encoded = {each.name: compiled.encode(each, tokens) for each in others}
        return cls(compiled.encode(first, tokens), lengths, encoded)

    def other(self, codec: Codec) -> Queries:
        """The same queries in another codec."""
        return Queries(self.others[codec.name], self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, batch: slice | NDArray[np.int64]) -> Queries:
        others = {name: _cut(parts, batch) for name, parts in self.others.items()}
        return Queries(_cut(self.parts, batch), self.lengths[batch], others)


def _cut(parts: Parts, batch: slice | NDArray[np.int64]) -> Parts:
    return Parts(parts.codes[batch], None if parts.scales is None else parts.scales[batch])


class Band(NamedTuple):
    """Document tokens from ``start`` on that another codec keeps than those before, and the queries in that codec."""

    start: int
    codec: Codec
    queries: Queries


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """Score a batch of queries at one budget. ``codec`` keeps the document tokens; where several do, those up to the first of
    the bands ``beyond``, whose starts rise and lie below r_c.

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
    beyond: tuple[Band, ...] = ()

    @property
    def bands(self) -> tuple[Band, ...]:
        """All bands that the budget reaches."""
        return (Band(0, self.codec, self.queries), *self.beyond)

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
