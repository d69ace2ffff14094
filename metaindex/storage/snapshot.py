"""A snapshot: what the index held after one commit. Immutable, so a search that started on it ends on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property
from metaindex.storage.cache import VectorMemory
from metaindex.storage.ids import IdLookup, lookup
from metaindex.storage.matches import Matches
from metaindex.storage.segment import Segment
from metaindex.types import Levels


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Segments and the documents removed from them.

    A **row** is a document's place in the concatenation of all segments: 0..rows-1, removed ones counted in. ``removed`` holds,
    rising, the rows whose documents are gone.
    """

    number: int
    levels: Levels
    segments: tuple[Segment, ...]
    removed: NDArray[np.int64]

    @cached_property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)

    def __len__(self) -> int:
        """How many documents are alive."""
        return self.rows - len(self.removed)

    @cached_property
    def memory(self) -> VectorMemory | None:
        """What limits the memory of vectors; ``None`` where they are in memory or mapped."""
        readers = (segment.levels[0].reader for segment in self.segments)
        return next((reader.memory for reader in readers if reader is not None), None)

    @cached_property
    def early_view(self) -> Snapshot:
        """The same documents by the early copy of their levels."""
        return Snapshot(self.number, self.levels, tuple(segment.early_view for segment in self.segments), self.removed)

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """The row at which each segment starts, and the total at the end: int64 [segments + 1]."""
        return np.cumsum([0, *(segment.rows for segment in self.segments)], dtype=np.int64)

    @cached_property
    def alive(self) -> NDArray[np.bool_] | None:
        """Which rows still stand, or ``None`` when all do."""
        if not len(self.removed):
            return None
        alive = np.ones(self.rows, dtype=bool)
        alive[self.removed] = False
        return alive

    @property
    def standing(self) -> NDArray[np.int64]:
        """The rows of the documents that are alive, rising."""
        return np.arange(self.rows) if self.alive is None else np.flatnonzero(self.alive)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The rows of the documents that are alive, in the order in which they were added."""
        alive = self.standing
        return alive[np.argsort(self.sequence_at(alive), kind="stable")]

    @cached_property
    def id_lookup(self) -> IdLookup:
        """The row of each id that is alive. A removed id may stand in a later row again."""
        if len(self.segments) == 1 and self.alive is None:
            return self.segments[0].id_lookup
        ids = _joined([segment.ids for segment in self.segments], np.dtype(np.int64))
        if self.alive is None:
            return lookup(ids)
        rows = np.flatnonzero(self.alive)
        return lookup(ids[rows], rows)

    @cached_property
    def matches(self) -> Matches:
        """What filters let through of this snapshot."""
        return Matches()

    def rows_of(self, sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, rising, of those documents of ``sequence`` that are alive."""
        found = [np.empty(0, np.int64)]
        for first, segment in zip(self.first_rows, self.segments):
            rows = segment.sequence_lookup.find(sequence)
            found.append(np.sort(rows[rows >= 0]) + first)
        rows = np.concatenate(found)
        return rows if self.alive is None else rows[self.alive[rows]]

    @cached_property
    def shortest(self) -> int:
        """How many tokens the shortest document has, removed ones counted in; 0 without documents."""
        return min((int(segment.lengths[-1]) for segment in self.segments if segment.rows), default=0)

    def stored_tokens(self, r_c: int) -> int:
        """How many tokens a scan at ``r_c`` reads: over all documents, padding within a level counted in."""
        return sum(
            level.rows * min(level.width, r_c - level.start)
            for segment in self.segments
            for level in segment.levels
            if level.start < r_c
        )

    def pieces(self, r_c: int) -> int:
        """How many levels a scan at ``r_c`` reads documents from, counted over all documents."""
        return sum(level.rows for segment in self.segments for level in segment.levels if level.start < r_c)

    def place(self, row: int) -> tuple[Segment, int]:
        """The segment that holds ``row``, and the row within it."""
        at = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.segments[at], row - int(self.first_rows[at])

    def ids_at(self, rows: NDArray[np.int64]) -> NDArray:
        """The ids of ``rows`` [...]. Reads each segment's own array: a joined copy would cost memory for every document."""
        text = any(segment.ids.dtype == object for segment in self.segments)
        return self._take(rows, [segment.ids for segment in self.segments], np.dtype(object if text else np.int64))

    def lengths_at(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        return self._take(rows, [segment.lengths for segment in self.segments], np.dtype(np.int32))

    def sequence_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._take(rows, [segment.sequence for segment in self.segments], np.dtype(np.int64))

    def _take(self, rows: NDArray[np.int64], arrays: list[NDArray], dtype: np.dtype) -> NDArray:
        taken = np.empty(rows.shape, dtype)
        if len(arrays) == 1:
            return arrays[0][rows]
        at = np.searchsorted(self.first_rows, rows, side="right") - 1
        for segment in np.unique(at):
            here = at == segment
            taken[here] = arrays[segment][rows[here] - self.first_rows[segment]]
        return taken


def _joined(parts: list[NDArray], empty: np.dtype) -> NDArray:
    if len(parts) == 1:
        return parts[0]  # one segment, the usual case after a bulk add, costs no copy
    return np.concatenate(parts) if parts else np.empty(0, empty)
