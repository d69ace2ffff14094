"""Requests over several bands, by a scorer that knows one codec: each band's maximum for every query token, then their sum.

A query of R tokens is asked as R queries of one token, whose scores are the maxima. Each band is a snapshot of its own, which
holds the documents that reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts
from metaindex.scoring.ranking import top
from metaindex.scoring.request import Queries, ScoreRequest
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget, Levels

_MAXIMA_BYTES = 4 << 20  # of one block of documents
_NONE = np.empty(0, np.int64)


class OneCodec(Protocol):
    """Scores requests of one band."""

    def score(self, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None: ...


@dataclass(frozen=True, eq=False)
class _View:
    """A band of a snapshot: ``snapshot`` holds the tokens from ``start`` to ``stop`` of the documents that reach it, which are
    the first ``reach`` int64 [segments] rows of each segment."""

    start: int
    stop: int
    snapshot: Snapshot
    reach: NDArray[np.int64]

    def rows(self, whole: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places here of rows [n] of the whole snapshot; -1 where a document does not reach the band."""
        at = np.searchsorted(whole.first_rows, rows, side="right") - 1
        inside = rows - whole.first_rows[at]
        firsts = np.cumsum(self.reach) - self.reach
        return np.where(inside < self.reach[at], firsts[at] + inside, -1)


# What a compiled scorer keeps for a snapshot, it keeps for each band: so the views stay the same as long as the snapshot does.
_views: WeakKeyDictionary[Snapshot, dict[tuple[int, int], _View]] = WeakKeyDictionary()


def score(scorer: OneCodec, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
    """See ``Scorer.score``; ``scorer`` serves each band alone."""
    scores.fill(-np.inf)
    if rows is not None:
        rows.fill(-1)
    alike = request.candidates is None or len(request.candidates) == 1
    for batch in [slice(None)] if alike else [slice(b, b + 1) for b in range(len(request.queries))]:
        part = replace(request, beyond=tuple(band._replace(queries=band.queries[batch]) for band in request.beyond))
        part = replace(part, queries=request.queries[batch])
        asked = np.arange(request.snapshot.rows)
        if request.candidates is not None:
            asked = np.asarray(request.candidates[0 if alike else batch.start])
        _score_alike(scorer, part, asked, scores[batch], None if rows is None else rows[batch])


def _score_alike(
    scorer: OneCodec,
    request: ScoreRequest,
    asked: NDArray[np.int64],
    scores: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
) -> None:
    """All queries against the same documents ``asked`` [C]."""
    valid = asked >= 0
    if request.allow is not None:
        valid[valid] = request.allow[asked[valid]]
    places = np.flatnonzero(valid)
    best = None if rows is None else [(np.empty(0, np.float32), _NONE)] * len(scores)
    for block, found in _blocks(scorer, request, asked, places):
        if best is None:
            scores[:, block] = found
            continue
        for b, (kept, before) in enumerate(zip(found, best)):
            best[b] = _merged(request, before, kept, asked[block])
    if best is not None and rows is not None:
        for b, (found, chosen) in enumerate(best):
            scores[b, : len(found)], rows[b, : len(found)] = found, chosen


def _merged(
    request: ScoreRequest,
    before: tuple[NDArray[np.float32], NDArray[np.int64]],
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of what was found before and of one block more."""
    assert request.k is not None
    found, chosen = before
    if len(found) == request.k:
        better = np.flatnonzero(scores >= found[-1])
        scores, rows = scores[better], rows[better]
    if not len(scores):
        return before
    scores, rows = np.concatenate([found, scores]), np.concatenate([chosen, rows])
    order = top(scores, rows, request.snapshot.sequence_at(rows), request.k)
    return scores[order], rows[order]


def _blocks(
    scorer: OneCodec, request: ScoreRequest, asked: NDArray[np.int64], places: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Some of ``places`` [n], and the scores [B, n] of the documents ``asked`` there."""
    whole, (r_q, r_c) = request.snapshot, request.budget
    batch, width = request.queries.parts.codes.shape[:2]
    width = min(width, r_q)
    used = (np.arange(width) < request.queries.lengths[:, None]).reshape(-1)
    bands = [(view, band.codec, _apart(band.queries, width)) for view, band in zip(_views_of(request), request.bands)]
    step = max(1, _MAXIMA_BYTES // (4 * max(1, batch * width)))
    for start in range(0, len(places), step):
        block = places[start : start + step]
        maxima = np.full((batch * width, len(block)), -np.inf, np.float32)
        for view, codec, queries in bands:
            rows = view.rows(whole, asked[block])
            here = np.flatnonzero(rows >= 0)
            if not len(here):
                continue
            part = ScoreRequest(
                queries,
                view.snapshot,
                codec,
                request.dim,
                Budget(1, min(view.stop, r_c) - view.start),
                rows[here][None, :],
                num_threads=request.num_threads,
            )
            found = np.empty(part.output_shape, np.float32)
            scorer.score(part, found)
            maxima[:, here] = np.maximum(maxima[:, here], found)
        maxima[~used] = 0
        by_token = maxima.reshape(batch, width, len(block))
        total = np.zeros((batch, len(block)), np.float32)
        for token in range(width):  # numpy's own sum adds in an order that depends on how many documents there are
            total += by_token[:, token]
        yield block, total


def _apart(queries: Queries, width: int) -> Queries:
    """The first ``width`` tokens of each query as queries of one token."""
    codes, scales = queries.parts
    codes = np.ascontiguousarray(codes[:, :width]).reshape(-1, 1, codes.shape[2])
    scales = None if scales is None else np.ascontiguousarray(scales[:, :width]).reshape(-1, 1)
    return Queries(Parts(codes, scales), np.ones(len(codes), np.int32))


def _views_of(request: ScoreRequest) -> list[_View]:
    """The bands of a request's snapshot, the last one as far as the budget needs levels of it."""
    starts, levels = [band.start for band in request.bands], request.snapshot.levels
    spans = list(pairwise([*starts, levels.stop(levels.needed(request.budget.r_c) - 1)]))
    views = _views.setdefault(request.snapshot, {})
    for span in spans:
        if span not in views:
            views[span] = _view(request.snapshot, *span)
    return [views[span] for span in spans]


def _view(snapshot: Snapshot, start: int, stop: int) -> _View:
    segments, reach = [], []
    for segment in snapshot.segments:
        levels = tuple(_moved(level, start) for level in segment.levels if start <= level.start < stop)
        rows = levels[0].rows if levels else 0
        reach.append(rows)
        if rows:
            sequence = segment.sequence[:rows]
            segments.append(Segment(segment.name, rows, levels, segment.lengths[:rows] - np.int32(start), sequence, sequence))
    edges = tuple(edge - start for edge in snapshot.levels.edges if start < edge <= stop)
    return _View(start, stop, Snapshot(snapshot.number, Levels(edges), tuple(segments), _NONE), np.array(reach, np.int64))


def _moved(level: Level, start: int) -> Level:
    return replace(level, start=level.start - start, load=lambda: level.parts)
