"""Searches in an index that is larger than the memory it may take: the ordinary scorers on one small snapshot after another.

What has to be scored, all rows of a snapshot or its candidates, is cut into windows in rising order of rows. A window's
vectors are read into one buffer, whose size ``VectorMemory`` grants, or stand in memory already; where there are several, the
next one is read into one half of the buffer while this one is scored in the other. It is scored as a snapshot of its own, and
the best of all windows are merged by the same rule: equal scores in the order of addition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts
from metaindex.scoring.reference import document_tokens
from metaindex.scoring.registry import Scorer
from metaindex.scoring.request import ScoreRequest
from metaindex.storage.cache import VectorMemory
from metaindex.storage.reading import runs_of
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.tensors import ALIGNMENT

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class _Strand:
    """The rows of one segment that are needed: all of them, or ``rows`` int64, rising; ``levels``: those that are needed.

    ``reach``: how many of these rows each level holds, and they come first. ``kept``: levels that are in memory.
    """

    segment: Segment
    rows: NDArray[np.int64] | None
    levels: tuple[Level, ...]
    reach: tuple[int, ...]
    kept: dict[Level, Parts]

    @property
    def count(self) -> int:
        return self.segment.rows if self.rows is None else len(self.rows)

    def room(self, start: int, stop: int) -> int:
        """What the vectors of the rows at places ``[start, stop)`` take in a buffer."""
        taken = 0
        for level, reach in zip(self.levels, self.reach):
            rows = min(stop, reach) - min(start, reach)
            # Single rows of a level in memory are copied next to one another; a run of them is used as it stands.
            if rows and (self.rows is not None or level not in self.kept):
                assert level.reader is not None
                taken += level.reader.room(rows)
        return taken

    def fit(self, start: int, nbytes: int) -> int:
        """The largest ``stop`` such that ``[start, stop)`` takes at most ``nbytes``."""
        low, high = start, self.count
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.room(start, middle) <= nbytes else (low, middle - 1)
        return low

    def part(self, start: int, stop: int, buffer: NDArray[np.uint8]) -> tuple[Segment, NDArray[np.uint8]]:
        """The rows at ``[start, stop)`` as a segment, its vectors read into ``buffer``, and what is left of that."""
        rows = None if self.rows is None else self.rows[start:stop]
        chosen = slice(start, stop) if rows is None else rows
        levels = []
        for level, reach in zip(self.levels, self.reach):
            count = min(stop, reach) - min(start, reach)
            if not count:
                break
            kept = self.kept.get(level)
            if kept is None:
                assert level.reader is not None
                runs = np.array([[start, start + count]]) if rows is None else runs_of(rows[:count])
                parts, buffer = level.reader.carve(count, runs, buffer)
            elif rows is None:
                scales = None if kept.scales is None else kept.scales[start : start + count]
                parts = Parts(kept.codes[start : start + count], scales)
            else:
                assert level.reader is not None
                parts, buffer = level.reader.carve(count, _NO_RUNS, buffer)
                np.take(kept.codes, rows[:count], axis=0, out=parts.codes, mode="clip")
                if kept.scales is not None and parts.scales is not None:
                    np.take(kept.scales, rows[:count], axis=0, out=parts.scales, mode="clip")
            levels.append(Level.of(level.start, level.width, level.codec, parts))
        sequence = self.segment.sequence[chosen]
        return Segment(self.segment.name, stop - start, tuple(levels), self.segment.lengths[chosen], sequence, sequence), buffer


_NO_RUNS = np.empty((0, 2), np.int64)
_Span: TypeAlias = tuple[list[tuple[_Strand, int, int]], int]


class _Window:
    """A small snapshot, and the places ``[start, stop)`` that its rows have among all that is needed."""

    def __init__(self, snapshot: Snapshot, start: int) -> None:
        self.snapshot, self.start, self.stop = snapshot, start, start + snapshot.rows


class _Needed:
    """What a request needs of a snapshot. A **place** counts the needed rows of all strands, one strand after another."""

    def __init__(self, snapshot: Snapshot, strands: Sequence[_Strand], firsts: Sequence[int]) -> None:
        self.snapshot, self._strands, self._firsts = snapshot, strands, firsts
        self._bases = np.array([0, *accumulate(strand.count for strand in strands)], np.int64)

    def rows_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of the snapshot at ``places`` [n]."""
        rows = np.empty_like(places)
        at = np.searchsorted(self._bases, places, side="right") - 1
        for number in np.unique(at):
            here, strand = at == number, self._strands[number]
            inside = places[here] - self._bases[number]
            rows[here] = self._firsts[number] + (inside if strand.rows is None else strand.rows[inside])
        return rows

    def places_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of needed rows [...]; -1 stays."""
        places = np.full(rows.shape, -1, np.int64)
        for base, first, strand in zip(self._bases.tolist(), self._firsts, self._strands):
            here = (rows >= first) & (rows < first + strand.segment.rows)
            inside = rows[here] - first
            places[here] = base + (inside if strand.rows is None else np.searchsorted(strand.rows, inside))
        return places

    def windows(self, memory: VectorMemory, allowed: NDArray[np.bool_] | None = None) -> Iterator[_Window]:
        """All that is needed, in rising order; windows without a row ``allowed`` [places] are not read. A window is good until
        the next one is asked for."""
        least = max((strand.room(0, 1) for strand in self._strands), default=0)
        wanted = sum(strand.room(0, strand.count) for strand in self._strands)
        with memory.lease(least + ALIGNMENT, wanted + ALIGNMENT) if wanted else nullcontext(ALIGNMENT) as granted:
            memory_block = np.empty(granted, np.uint8)
            buffer = memory_block[-memory_block.ctypes.data % ALIGNMENT :]
            buffer = buffer[: granted - ALIGNMENT]
            half = len(buffer) // 2 // ALIGNMENT * ALIGNMENT
            if len(buffer) < wanted and half >= least:
                yield from self._ahead(self._spans(half, allowed), buffer[:half], buffer[half : 2 * half])
            else:
                for pieces, first in self._spans(len(buffer), allowed):
                    yield self._window(pieces, first, buffer)

    def _spans(self, nbytes: int, allowed: NDArray[np.bool_] | None) -> Iterator[_Span]:
        """The windows, each of ``nbytes`` at most, before they are read."""
        at, start, place = 0, 0, 0
        while at < len(self._strands):
            pieces: list[tuple[_Strand, int, int]] = []
            left, first = nbytes, place
            while at < len(self._strands):
                strand = self._strands[at]
                stop = strand.fit(start, left)
                if stop > start:
                    pieces.append((strand, start, stop))
                    left -= strand.room(start, stop)
                    place += stop - start
                if stop < strand.count:
                    start = stop
                    break
                at, start = at + 1, 0
            if allowed is None or allowed[first:place].any():
                yield pieces, first

    def _ahead(self, spans: Iterator[_Span], this: NDArray[np.uint8], other: NDArray[np.uint8]) -> Iterator[_Window]:
        """Windows by turns in two buffers: one thread reads the next window while the caller scores this one."""
        span = next(spans, None)
        # Its end waits for the read that is under way, so no buffer goes back to the lease while it is written to.
        with ThreadPoolExecutor(1, "metaindex-read") as pool:
            reader: ThreadPoolExecutor | None = pool
            window = None if span is None else self._window(*span, this)
            while window is not None:
                this, other = other, this
                span, ahead = next(spans, None), None
                if span is not None and reader is not None:
                    try:
                        ahead = reader.submit(self._window, *span, this)
                    except RuntimeError:  # no thread starts any more: the interpreter ends, or the system has none left
                        reader = None
                yield window
                if ahead is not None:
                    window = ahead.result()
                else:
                    window = None if span is None else self._window(*span, this)

    def _window(self, pieces: Sequence[tuple[_Strand, int, int]], first: int, buffer: NDArray[np.uint8]) -> _Window:
        segments = []
        for strand, start, stop in pieces:
            segment, buffer = strand.part(start, stop, buffer)
            segments.append(segment)
        return _Window(Snapshot(self.snapshot.number, self.snapshot.levels, tuple(segments), _NONE), first)


@contextmanager
def _needed(snapshot: Snapshot, memory: VectorMemory, r_c: int, rows: NDArray[np.int64] | None) -> Iterator[_Needed]:
    """``rows`` int64, rising and distinct, or all, at budget ``r_c``. What is in memory of it stays there until the end."""
    firsts = snapshot.first_rows
    needed = snapshot.levels.needed(r_c)
    chosen: list[tuple[int, NDArray[np.int64] | None, tuple[int, ...]]] = []
    reads: dict[Level, int] = {}
    for number, segment in enumerate(snapshot.segments):
        levels = segment.levels[:needed]
        if rows is None:
            inside, reach = None, tuple(level.rows for level in levels)
        else:
            start, stop = np.searchsorted(rows, firsts[number : number + 2]).tolist()
            if start == stop:
                continue
            inside = rows[start:stop] - firsts[number]
            reach = tuple(np.searchsorted(inside, [level.rows for level in levels]).tolist())
        chosen.append((number, inside, reach))
        reads |= {level: level.nbytes // level.rows * count for level, count in zip(levels, reach)}
    with memory.using(reads) as kept:
        strands = []
        for number, inside, reach in chosen:
            segment = snapshot.segments[number]
            levels = segment.levels[:needed]
            if all(level in kept for level in levels):
                inside, reach = None, tuple(level.rows for level in levels)  # the whole segment costs nothing
            strands.append(_Strand(segment, inside, levels, reach, kept))
        yield _Needed(snapshot, strands, [int(firsts[number]) for number, _, _ in chosen])


def score(scorer: Scorer, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
    """``scorer.score``, for a snapshot whose memory is limited.

    Raises:
        CapacityError: a document does not fit. CorruptIndexError: a file was cut short.
    """
    memory = request.snapshot.memory
    if memory is None:
        scorer.score(request, scores, rows)
    elif request.candidates is None:
        _scan(memory, scorer, request, scores, rows)
    else:
        _gather(memory, scorer, request, request.candidates, scores, rows)


def tokens_at(snapshot: Snapshot, row: int) -> NDArray[np.float32]:
    """The decoded tokens [t, d] of the document at ``row``. Raises as ``score`` does."""
    segment, inside = snapshot.place(row)
    tokens = int(segment.lengths[inside])
    if (memory := snapshot.memory) is None:
        return document_tokens(segment, inside, tokens)
    with _needed(snapshot, memory, tokens, np.array([row])) as needed:
        place = int(needed.places_of(np.array([row]))[0])
        for window in needed.windows(memory):
            if window.start <= place < window.stop:
                segment, inside = window.snapshot.place(place - window.start)
                return document_tokens(segment, inside, tokens)
    raise AssertionError("a row that is needed is in no window")


def _scan(
    memory: VectorMemory, scorer: Scorer, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None
) -> None:
    if rows is None:
        scores.fill(-np.inf)
    best = None if rows is None else _Best(request.snapshot, scores, rows)
    with _needed(request.snapshot, memory, request.budget.r_c, None) as needed:
        for window in needed.windows(memory, request.allow):  # every row is needed, so places are rows
            allow = None if request.allow is None else request.allow[window.start : window.stop]
            if best is None:
                part = replace(request, snapshot=window.snapshot, allow=allow)
                found = np.empty(part.output_shape, np.float32)
                scorer.score(part, found)
                scores[:, window.start : window.stop] = found
            else:
                best.offer(needed, window, scorer, replace(request, snapshot=window.snapshot, allow=allow))
    if best is not None:
        best.fill()


def _gather(
    memory: VectorMemory,
    scorer: Scorer,
    request: ScoreRequest,
    candidates: NDArray[np.int64],
    scores: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
) -> None:
    scores.fill(-np.inf)
    best = None if rows is None else _Best(request.snapshot, scores, rows)
    unique = np.unique(candidates)
    with _needed(request.snapshot, memory, request.budget.r_c, unique[unique >= 0]) as needed:
        places = needed.places_of(candidates)
        order = np.argsort(places, axis=1, kind="stable")
        places = np.take_along_axis(places, order, axis=1)
        for window in needed.windows(memory):
            bounds = np.array([np.searchsorted(each, (window.start, window.stop)) for each in places])
            width = int((bounds[:, 1] - bounds[:, 0]).max(initial=0))
            if not width:
                continue
            here = np.arange(width) < (bounds[:, 1] - bounds[:, 0])[:, None]
            columns = np.minimum(bounds[:, :1] + np.arange(width), places.shape[1] - 1)
            asked = np.where(here, np.take_along_axis(places, columns, axis=1) - window.start, -1)
            allow = None
            if request.allow is not None:
                allow = request.allow[needed.rows_at(np.arange(window.start, window.stop))]
            part = replace(request, snapshot=window.snapshot, candidates=asked, allow=allow)
            if best is not None:
                best.offer(needed, window, scorer, part)
                continue
            found = np.empty(part.output_shape, np.float32)
            scorer.score(part, found)
            for b in range(len(scores)):
                each = b if len(asked) > 1 else 0
                scores[b, order[each, columns[each, here[each]]]] = found[b, here[each]]
    if best is not None:
        best.fill()


class _Best:
    """The k best of all windows: equal scores in the order of addition."""

    def __init__(self, snapshot: Snapshot, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        self._snapshot, self._scores, self._rows = snapshot, scores, rows
        self._batch, self._k = scores.shape
        self._worst = np.full((self._batch, 1), -np.inf, np.float32)
        self._queries, self._found, self._at = _NONE, np.empty(0, np.float32), _NONE
        self._more: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]] = []
        self._pending = 0

    def offer(self, needed: _Needed, window: _Window, scorer: Scorer, request: ScoreRequest) -> None:
        """The best of one window."""
        most = window.snapshot.rows if request.candidates is None else request.candidates.shape[1]
        request = replace(request, k=min(self._k, most))
        scores, rows = np.empty(request.output_shape, np.float32), np.empty(request.output_shape, np.int64)
        scorer.score(request, scores, rows)
        queries, columns = np.nonzero((rows >= 0) & (scores >= self._worst))
        if len(queries):
            rows = needed.rows_at(rows[queries, columns] + window.start)
            self._more.append((queries, scores[queries, columns], rows))
            self._pending += len(queries)
        if self._pending > self._batch * self._k:
            self._merge()

    def fill(self) -> None:
        """Write what was asked for into the answer."""
        self._merge()
        self._scores.fill(-np.inf)
        self._rows.fill(-1)
        ranks = self._ranks()
        self._scores[self._queries, ranks], self._rows[self._queries, ranks] = self._found, self._at

    def _merge(self) -> None:
        queries, found, at = (np.concatenate(each) for each in zip((self._queries, self._found, self._at), *self._more))
        order = np.lexsort((self._snapshot.sequence_at(at), -found, queries))
        self._queries, self._found, self._at = queries[order], found[order], at[order]
        ranks = self._ranks()
        kept = ranks < self._k
        self._worst[self._queries[ranks == self._k - 1], 0] = self._found[ranks == self._k - 1]
        self._queries, self._found, self._at = self._queries[kept], self._found[kept], self._at[kept]
        self._more, self._pending = [], 0

    def _ranks(self) -> NDArray[np.int64]:
        """The rank of each hit among those of its query."""
        return np.arange(len(self._queries)) - np.searchsorted(self._queries, self._queries)
