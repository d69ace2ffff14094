"""What a stage costs: rows, bytes and arithmetic from the shape of the index, and seconds where the machine was calibrated.

Numbers in, numbers out: nothing here runs or reads anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from metaindex.types import Budget


@dataclass(frozen=True)
class StageCost:
    """The work of one stage for a batch of queries.

    ``rows``: documents compared, summed over the queries. ``nbytes``: document bytes read; a scan reads each document once
    for the whole batch. ``flop``: ``2 * r_q * tokens * d``, multiplications and additions.
    """

    rows: int
    nbytes: int
    flop: int

    def __add__(self, other: StageCost) -> StageCost:
        return StageCost(self.rows + other.rows, self.nbytes + other.nbytes, self.flop + other.flop)


def scan_cost(rows: int, tokens: int, nbytes: int, queries: int, budget: Budget, dim: int) -> StageCost:
    """All ``rows`` documents, whose ``tokens`` tokens below r_c take ``nbytes`` between them, against ``queries`` queries."""
    return StageCost(rows * queries, nbytes, 2 * budget.r_q * tokens * queries * dim)


def gather_cost(rows: int, tokens: int, nbytes: int, budget: Budget, dim: int) -> StageCost:
    """``rows`` candidates over all queries, whose ``tokens`` tokens below r_c take ``nbytes`` between them."""
    return StageCost(rows, nbytes, 2 * budget.r_q * tokens * dim)


@dataclass(frozen=True)
class StageWork:
    """What the time of a stage depends on.

    ``scans``: documents follow one another; else they are candidates, each somewhere. ``queries`` in the batch, of
    ``query_tokens`` each. ``lanes``: query tokens that a document token is compared with at once: of the whole batch in a scan,
    of one query where each has candidates of its own. ``documents``, ``tokens``, ``nbytes``: what is read, a document once for
    all those lanes. ``comparisons``: of a query with a document. ``pieces``: levels that documents are read from, over all of
    them. ``footprint``: bytes of the part of the index in which they lie. ``kept``: results of one query.
    """

    scans: bool
    queries: int
    query_tokens: int
    lanes: int
    documents: int
    comparisons: int
    tokens: int
    pieces: int
    dim: int
    nbytes: int
    footprint: int
    kept: int


PAGE_BYTES = 4096


class LaneRates(NamedTuple):
    """Seconds at a number of lanes: for each document, each of its tokens, each dimension of each token."""

    lanes: int
    document: float
    token: float
    dim: float


class FarRates(NamedTuple):
    """Seconds that reading from memory takes, where arithmetic does not take longer: of a stage, until the first documents are
    there; for each document, piece and byte. ``near`` and ``away``: bytes up to which data stays in a cache, and from which on
    none of it does."""

    stage: float = 0.0
    document: float = 0.0
    piece: float = 0.0
    byte: float = 0.0
    near: int = 1 << 20
    away: int = 1 << 30

    def seconds(self, work: StageWork) -> float:
        """How long reading takes, but for what is read from a cache."""
        reading = work.documents * self.document + work.pieces * self.piece + work.nbytes * self.byte
        return self.outside(work.footprint) * self.stage + self.missing(work) * reading

    def missing(self, work: StageWork) -> float:
        """The share of what a stage reads that comes from memory. Candidates lie anywhere: of data outside caches the first
        visit to a page goes to memory, a later one where pages don't stay in a cache either."""
        outside = self.outside(work.footprint)
        if work.scans or not work.pieces:
            return outside
        visits, pages = work.pieces + work.nbytes / PAGE_BYTES, max(1.0, work.footprint / PAGE_BYTES)
        first = pages * -math.expm1(-visits / pages) / visits
        return outside * (first + outside * (1 - first))

    def outside(self, footprint: int) -> float:
        """0 for data that stays in a cache, 1 for data that does not, in between by the logarithm of its size."""
        return min(1.0, max(0.0, math.log(max(1, footprint) / self.near) / math.log(self.away / self.near)))


class Threads(NamedTuple):
    """What ``number`` threads do to a stage: the seconds they take to start, and how much faster arithmetic and memory get."""

    number: int = 1
    start: float = 0.0
    arithmetic: float = 1.0
    memory: float = 1.0


@dataclass(frozen=True)
class OperationRates:
    """Seconds of one operation of one scorer and codec on one thread.

    ``stage``: whatever it does. ``comparison``: each beyond one for every document. ``pack``: for each dimension of each query
    token. ``kept`` and ``sifted``: for each result, and for each result times the logarithm of how many documents stand behind
    it. ``lanes``, rising. ``piece``: for each piece, wherever it lies. ``far``: what memory adds to that.
    """

    stage: float
    comparison: float
    pack: float
    kept: float
    sifted: float
    lanes: tuple[LaneRates, ...]
    piece: float = 0.0
    far: FarRates = FarRates()
    threads: Threads = Threads()


@dataclass(frozen=True)
class Rates:
    """What one scorer and codec take on one machine."""

    scan: OperationRates
    gather: OperationRates

    def seconds(self, work: StageWork, num_threads: int = 1) -> float:
        """How long a stage should take, on data that was read before."""
        rates = self.scan if work.scans else self.gather
        lanes = _at(rates.lanes, work.lanes)
        fixed = rates.stage + rates.pack * work.queries * work.query_tokens * work.dim
        arithmetic = work.tokens * (lanes.token + lanes.dim * work.dim)
        memory = rates.far.seconds(work)
        per_document = lanes.document * work.documents + rates.comparison * (work.comparisons - work.documents)
        per_document += rates.piece * work.pieces
        # What is read next is asked for while the last is multiplied: the longer of the two counts.
        behind = max(1.0, work.comparisons / max(1, work.queries * work.kept))
        sorting = work.queries * work.kept * (rates.kept + rates.sifted * math.log(behind))
        alone = fixed + per_document + max(arithmetic, memory) + sorting
        if num_threads == 1 or rates.threads.number == 1:
            return alone
        # A few threads give their part of the speed of all; a stage too small for several runs on one.
        share = math.log(min(num_threads, rates.threads.number)) / math.log(rates.threads.number)
        faster, wider = math.pow(rates.threads.arithmetic, share), math.pow(rates.threads.memory, share)
        together = per_document / faster + max(arithmetic / faster, memory / wider)
        sorting /= min(num_threads, work.queries)
        return min(alone, fixed + rates.threads.start + together + sorting)


def _at(measured: Sequence[LaneRates], lanes: int) -> LaneRates:
    """The rates at ``lanes``, between those that were measured; beyond them they grow in proportion."""
    if lanes <= measured[0].lanes:
        return measured[0]
    for lower, higher in pairwise(measured):
        if lanes <= higher.lanes:
            share = (lanes - lower.lanes) / (higher.lanes - lower.lanes)
            return LaneRates(lanes, *(low + share * (high - low) for low, high in zip(lower[1:], higher[1:])))
    last = measured[-1]
    return LaneRates(lanes, *(lanes / last.lanes * rate for rate in last[1:]))
