"""Merging segments, so that many small additions don't leave many small segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts
from metaindex.storage.pack import empty_levels, rows_reaching
from metaindex.storage.place import Documents, LevelSource, tensor_names
from metaindex.storage.reading import LevelReader, runs_of, runs_of_equal
from metaindex.storage.schema import Schema
from metaindex.storage.segment import Segment

FAN = 4
MERGE_BYTES = 8 << 20
CHUNK_BYTES = 1 << 19


class Held(NamedTuple):
    """A segment, and the rows of it (int64, rising) whose documents are gone."""

    segment: Segment
    removed: NDArray[np.int64]


def due(segments: Sequence[Segment]) -> slice | None:
    """Which neighbouring segments to merge now, if any.

    Segments of 1, 4, 16 ... rows make tiers. Four at the end, none of a higher tier than the last, are merged, or as many as
    fit in ``MERGE_BYTES``; a segment of more than half of that is never merged again. So each tier leaves at most three
    segments, and a document is written a few times for each tier at most.
    """
    stop = first = len(segments)
    while first and segments[first - 1].nbytes <= MERGE_BYTES // 2 and _tier(segments[first - 1]) <= _tier(segments[stop - 1]):
        first -= 1
    if stop - first < FAN:
        return None
    total, last = 0, first
    while last < stop and total + segments[last].nbytes <= MERGE_BYTES:
        total += segments[last].nbytes
        last += 1
    return slice(first, last)


def _tier(segment: Segment) -> int:
    return (segment.rows.bit_length() - 1) // 2


class Merge:
    """The documents of neighbouring segments that still stand, as one segment: longest first, ties in the order of addition."""

    def __init__(self, held: Sequence[Held], schema: Schema) -> None:
        self._segments, self._schema = [one.segment for one in held], schema
        self._first = np.cumsum([0, *(segment.rows for segment in self._segments)])
        alive = np.ones(self._first[-1], dtype=bool)
        for first, one in zip(self._first, held):
            alive[first + one.removed] = False
        lengths = np.concatenate([segment.lengths for segment in self._segments])
        sequence = np.concatenate([segment.sequence for segment in self._segments])
        ids = np.concatenate([segment.ids for segment in self._segments])
        rows = np.flatnonzero(alive)
        self._rows = rows[np.lexsort((sequence[rows], -lengths[rows]))]
        chosen = sequence[self._rows]
        self.documents = Documents(lengths[self._rows], chosen, shared(chosen, ids[self._rows]))
        self._counts = rows_reaching(self.documents.lengths, schema.levels)

    def __len__(self) -> int:
        return len(self._rows)

    def parts(self) -> list[tuple[Parts, ...]]:
        """All levels, in every codec that keeps them, in memory."""
        merged = empty_levels(self._schema, self._counts)
        for level, copies in enumerate(merged):
            for number, parts in enumerate(copies):
                for target, kind in zip(parts, Parts._fields):
                    if target is not None:
                        at = 0
                        for chunk in self._chunks(number, level, kind):
                            target[at : at + len(chunk)] = chunk
                            at += len(chunk)
        return merged

    def sources(self) -> Iterator[LevelSource]:
        """All levels, read piece by piece as they are consumed."""
        for level, rows in enumerate(self._counts):
            names = tensor_names(self._schema.kept_in(level))
            yield LevelSource(rows, {name: self._chunks(number, level, kind) for name, (number, kind) in names.items()})

    def _chunks(self, number: int, level: int, kind: str) -> Iterator[NDArray]:
        """The rows of a level, ``number`` 0, or of its early copy, 1."""
        count = self._counts[level]
        present = [s.copies[number][level] if level < len(s.levels) else None for s in self._segments]
        reader = next(one for one in present if one is not None).reader
        if reader is not None:
            yield from self._chunks_read(number, level, kind, reader)
            return
        arrays = [None if one is None else getattr(one.parts, kind) for one in present]
        model = next(array for array in arrays if array is not None)
        step = max(1, CHUNK_BYTES // max(1, model[:1].nbytes))
        for start in range(0, count, step):
            rows = self._rows[start : min(start + step, count)]
            at = np.searchsorted(self._first, rows, side="right") - 1
            chunk = np.empty((len(rows), *model.shape[1:]), model.dtype)
            for segment in np.unique(at):
                here = at == segment
                chunk[here] = arrays[segment][rows[here] - self._first[segment]]
            yield chunk

    def _chunks_read(self, number: int, level: int, kind: str, model: LevelReader) -> Iterator[NDArray]:
        """As ``_chunks``, where memory is limited: rows are read straight to where they belong."""
        size = model.row_bytes[kind]
        with model.memory.lease(size, CHUNK_BYTES) as nbytes:
            step = min(nbytes, CHUNK_BYTES) // size or 1
            for start in range(0, self._counts[level], step):
                rows = self._rows[start : min(start + step, self._counts[level])]
                at = np.searchsorted(self._first, rows, side="right") - 1
                chunk = np.empty((len(rows), *model.row_shapes[kind]), model.dtypes[kind])
                for run, stop in runs_of_equal(at):
                    segment = self._segments[at[run]]
                    reader = segment.copies[number][level].reader
                    assert reader is not None
                    reader.fill(kind, runs_of(rows[run:stop] - self._first[at[run]]), chunk[run:stop])
                yield chunk
                del chunk  # before the next one is made


def shared(sequence: NDArray[np.int64], ids: NDArray) -> NDArray:
    """``ids``, or ``sequence`` itself where they are equal, as default ids are: eight bytes less for each document."""
    return sequence if ids.dtype != object and np.array_equal(sequence, ids) else ids
