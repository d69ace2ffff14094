"""Segments: immutable runs of documents, their tokens cut into levels.

Within a segment the longest documents come first, so the documents that reach level ``l`` are its first ``rows(l)`` rows and
a level holds no others. Rows of equal length keep the order in which they were added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property
from metaindex.codecs import Codec, Parts
from metaindex.storage.ids import IdLookup, lookup
from metaindex.storage.reading import LevelReader


@dataclass(frozen=True, eq=False)
class Level:
    """The tokens ``[start, start + width)`` of a segment's first ``rows`` documents.

    ``parts`` are the codes [rows, width, d] of ``codec`` and, where it is scaled, the scales [rows, width]. They are loaded
    (memory-mapped) at first use, so a search touches only the levels that its budget needs. Tokens past
    a document's length are zeros. Where memory is limited there is a ``reader``, which reads rows into buffers, and no
    ``parts``.
    """

    start: int
    width: int
    rows: int
    nbytes: int
    codec: Codec
    load: Callable[[], Parts] = field(repr=False)
    reader: LevelReader | None = field(default=None, repr=False)

    @classmethod
    def of(cls, start: int, width: int, codec: Codec, parts: Parts) -> Level:
        """A level whose ``parts`` are in memory."""
        nbytes = parts.codes.nbytes + (0 if parts.scales is None else parts.scales.nbytes)
        return cls(start, width, len(parts.codes), nbytes, codec, lambda: parts)

    @cached_property
    def parts(self) -> Parts:
        assert self.reader is None, "memory is limited, so a level is never held as a whole"
        return self.load()


@dataclass(frozen=True, eq=False)
class Segment:
    """``rows`` documents. Integer ids are int64 [rows]; text ids an object array of ``str``.

    ``lengths`` int32 [rows], falling: the number of tokens of each document.
    ``sequence`` int64 [rows]: each document's place in the order of addition, over the whole life of the index.
    ``early``: the copy of all levels in a smaller codec, where the index has one.
    """

    name: str
    rows: int
    levels: tuple[Level, ...]
    lengths: NDArray[np.int32]
    sequence: NDArray[np.int64]
    ids: NDArray
    early: tuple[Level, ...] = ()

    @property
    def copies(self) -> tuple[tuple[Level, ...], ...]:
        """The levels, and their early copy where there is one."""
        return (self.levels, self.early) if self.early else (self.levels,)

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for levels in self.copies for level in levels)

    @cached_property
    def early_view(self) -> Segment:
        """This segment with its early copy for levels."""
        assert self.early
        return replace(self, levels=self.early, early=())

    @cached_property
    def id_lookup(self) -> IdLookup:
        """Where each id stands in this segment."""
        return lookup(self.ids)

    @cached_property
    def sequence_lookup(self) -> IdLookup:
        """Where the document of each place in the order of addition stands in this segment."""
        return self.id_lookup if self.ids is self.sequence else lookup(self.sequence)
