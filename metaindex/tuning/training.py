"""What the training queries tell: where in every first stage, and in every stage after it, the documents stand that count.

One run of a first stage with a large keep gives the rank of each of them there. The scores of that list at a later budget give
their ranks among its first n, for any n: so the recall of every cascade that begins with this stage follows without running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.evaluation.metrics import TIE
from metaindex.execution import executor
from metaindex.execution.executor import Search
from metaindex.planning.plan import Step
from metaindex.types import Budget

LOST = np.int32(2**31 - 1)  # the rank of a document that a stage did not see

_MORE = 8  # beyond the k best: these show where ties end
_MOST_TIED = 1024
_COMPARISONS = 16 << 20  # at once


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the exact search finds, by score.

    ``scores`` float32 [Q, k], falling, and ``best`` int64 [Q, k]: its hits. ``rows`` int64 [Q, g], g >= k: the documents that
    count as found, which are more than k where others score like the k-th; -1 where there are fewer. ``expected`` int64 [Q]:
    how many of them make a recall of 1. ``tie``: what lies so near below the k-th score counts.
    """

    scores: NDArray[np.float32]
    best: NDArray[np.int64]
    rows: NDArray[np.int64]
    expected: NDArray[np.int64]
    tie: float

    def __getitem__(self, queries: NDArray[np.int64]) -> Wanted:
        return Wanted(self.scores[queries], self.best[queries], self.rows[queries], self.expected[queries], self.tie)

    def recall(self, kept: NDArray[np.bool_]) -> float:
        """The mean recall where ``kept`` [Q, g] of the rows come through."""
        counted = np.minimum(kept.sum(axis=1), self.expected)
        return float(np.mean(np.where(self.expected == 0, 1.0, counted / np.maximum(self.expected, 1))))


def wanted(search: Search, budget: Budget, k: int) -> Wanted:
    """The exact result of ``search`` at ``budget``; of documents that tie with the k-th at most a thousand are told apart."""
    more = min(k + _MORE, search.available)
    while True:
        found = executor.alone(search, Step(budget, more))
        tie = TIE * float(np.abs(found.scores).max(initial=0, where=found.rows >= 0))
        present = found.rows >= 0
        last = np.min(found.scores[:, :k], axis=1, where=present[:, :k], initial=np.inf)
        counts = present & (found.scores >= (last - tie)[:, None])
        if more >= search.available or more >= k + _MOST_TIED or not counts[:, -1].any():
            break
        more = min(4 * more, search.available, k + _MOST_TIED)
    most = int(counts.sum(axis=1).max(initial=1))
    expected = np.minimum(counts.sum(axis=1), k)
    return Wanted(found.scores[:, :k], found.rows[:, :k], np.where(counts, found.rows, -1)[:, :most], expected, tie)


class Proposals:
    """What a first stage keeps for the training queries: rows int64 [Q, K], best first.

    ``ranks`` int32 [Q, g]: the rank of every wanted document there, from 1.
    """

    def __init__(self, search: Search, step: Step, target: Wanted) -> None:
        self._search = search
        self.rows = executor.alone(search, step).rows
        self.keep = self.rows.shape[1]
        self._places = _places(self.rows, target.rows)
        self.ranks = np.where(self._places < 0, LOST, self._places + 1).astype(np.int32)

    def later(self, budget: Budget, keeps: Sequence[int], early: str | None = None) -> NDArray[np.int32]:
        """The ranks int32 [len(keeps), Q, g] at ``budget`` among the first n of each list, for each n of ``keeps``, rising;
        ``early`` as in ``Step``."""
        rows = self.rows[:, : keeps[-1]]
        scores = executor.gather(self._search.of(Step(budget, keeps[-1], early=early)), budget, rows)
        order = _order(scores, self._sequence(rows))
        inside = (self._places >= 0) & (self._places < keeps[-1])
        own = np.where(inside, np.take_along_axis(order, np.where(inside, self._places, 0), axis=1), -1)
        ranks = np.full((len(keeps), *own.shape), LOST, np.int32)
        before, start = np.ones(own.shape, np.int32), 0
        for at, stop in enumerate(keeps):
            before += _smaller(order[:, start:stop], own)
            kept = inside & (self._places < stop)
            ranks[at][kept] = before[kept]
            start = stop
        return ranks

    def _sequence(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._search.snapshot.sequence_at(np.maximum(rows, 0))


def _places(rows: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in each list of ``rows`` [Q, K] the documents ``asked`` [Q, g] stand; -1 where they don't."""
    places = np.full(asked.shape, -1, np.int64)
    for here, wanted_here, found in zip(rows, asked, places):
        by_row = np.argsort(here)
        at = np.minimum(np.searchsorted(here, wanted_here, sorter=by_row), len(here) - 1)
        there = (here[by_row[at]] == wanted_here) & (wanted_here >= 0)
        found[there] = by_row[at][there]
    return places


def _order(scores: NDArray[np.float32], sequence: NDArray[np.int64]) -> NDArray[np.int32]:
    """The place of each document [Q, K] when its list is ranked: higher scores first, equal ones by ``sequence``."""
    order = np.empty(scores.shape, np.int32)
    ranked = np.arange(scores.shape[1], dtype=np.int32)
    for each, here, added in zip(order, scores, sequence):
        each[np.lexsort((added, -here))] = ranked
    return order


def _smaller(order: NDArray[np.int32], own: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each number of ``own`` [Q, g], how many of the same row of ``order`` [Q, n] are smaller."""
    counts = np.zeros(own.shape, np.int32)
    step = max(1, _COMPARISONS // max(1, order.shape[1] * own.shape[1]))
    for start in range(0, len(order), step):
        here = slice(start, start + step)
        counts[here] = (order[here, :, None] < own[here, None, :]).sum(axis=1, dtype=np.int32)
    return counts
