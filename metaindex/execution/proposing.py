"""The coarse stage of a plan: what FAISS proposes, documents it does not know yet, and what stands in where it can't serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.coarse.stage import CoarseStage, Ready
from metaindex.coarse.vectors import encoded
from metaindex.execution import windows
from metaindex.planning.cost import StageCost
from metaindex.planning.plan import Coarse, Step
from metaindex.types import Budget

if TYPE_CHECKING:
    from metaindex.execution.executor import Search

SCORER = "faiss"


class Proposed(NamedTuple):
    """The candidates int64 [B, C] of a batch, each once, -1 where a query has fewer: the first ``keep`` of FAISS, what a scan
    topped up last. ``cost`` counts that scan, for ``topped_up`` queries."""

    rows: NDArray[np.int64]
    cost: StageCost
    topped_up: int


@dataclass(frozen=True, eq=False)
class Proposer:
    """A coarse stage about to run: ``keep`` candidates for each query, at least ``needed`` where there are as many."""

    ready: Ready
    source: Coarse
    budget: Budget
    keep: int
    needed: int
    by_first_token: bool

    @property
    def why(self) -> str:
        return self.ready.why

    def unseen(self, search: Search) -> NDArray[np.int64]:
        """The rows, rising, of the allowed documents that FAISS does not have."""
        rows = self.ready.unseen
        return rows if search.kept is None or search.allowed is None else rows[search.allowed[rows]]

    def width(self, search: Search) -> int:
        """The most candidates that a query gets in the ordinary case."""
        return self.keep if self.by_first_token else self.keep + len(self.ready.unseen)

    def cost(self, search: Search) -> StageCost:
        """What FAISS compares on average, and the documents that it does not have; without what ``proposed`` tops up."""
        rows, nbytes = self.ready.work(len(search.queries), self.keep, self.source.settings)
        flop = 2 * rows * self.ready.vectors.size
        if not self.by_first_token or not len(unseen := self.unseen(search)):
            return StageCost(rows, nbytes, flop)
        return StageCost(rows, nbytes, flop) + search.cost(self.budget, unseen[None, :])

    def proposed(self, search: Search) -> Proposed:
        tokens, lengths = self._asked(search)
        allowed = None if search.kept is None else search.allowed
        found = self.ready.candidates(tokens, lengths, self.keep, allowed, self.source.settings, search.num_threads)
        return self._topped_up(search, self._with_unseen(search, found))

    def scores(self, search: Search, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the one query of ``search`` scores with the documents at ``rows``, float32 [n]: what FAISS goes by, or nearly
        where its index keeps codes."""
        documents = np.concatenate(list(encoded(self.ready.vectors, search.snapshot, rows)))
        return np.asarray(documents @ self.ready.vectors.queries(*self._asked(search))[0])

    def _asked(self, search: Search) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """The query tokens [B, r_q, d] that count, and how many of each query are its own."""
        r_q = self.budget.r_q
        return search.codec.decode(search.queries.parts)[:, :r_q], np.minimum(search.queries.lengths, r_q)

    def _with_unseen(self, search: Search, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """New documents lie in no FAISS index yet. By the first token they compete by its exact score, as all candidates then
        do; an encoding of all tokens would take longer than the next stage, to which all of them go."""
        unseen = self.unseen(search)
        if not len(unseen):
            return found
        if not self.by_first_token:
            return np.concatenate([found, np.broadcast_to(unseen, (len(found), len(unseen)))], axis=1)
        best = _best(search, self.budget, unseen[None, :], min(self.keep, len(unseen)))
        return _best(search, self.budget, np.concatenate([found, best], axis=1), self.keep)

    def _topped_up(self, search: Search, found: NDArray[np.int64]) -> Proposed:
        """Lists that few allowed documents are in, and graphs that few of them are reached in, may yield less than an answer
        takes: such queries get the best of a scan of level 0 as well."""
        cost = self.cost(search)
        starved = np.flatnonzero((found >= 0).sum(axis=1) < min(self.needed, search.available))
        if not len(starved):
            return Proposed(found, cost, 0)
        part = replace(search, queries=search.queries[starved])
        best = _best(part, self.budget, search.sources, min(self.keep, search.available))
        more = np.full((len(found), best.shape[1]), -1)
        for query, rows in zip(starved, best):
            more[query] = np.where(np.isin(rows, found[query]), -1, rows)
        return Proposed(np.concatenate([found, more], axis=1), cost + part.cost(self.budget, search.sources), len(starved))


def settled(search: Search, steps: Sequence[Step], k: int) -> tuple[list[Step], Proposer | None, str]:
    """``steps`` as they can run, who proposes the candidates of the first if that is a coarse stage, and if nobody does why.

    Where the coarse stage can't serve, a scan of level 0 stands in, which finds what it is to find or more. For encodings of
    all tokens it would find less: without them the next stage compares everything.
    """
    first, *rest = steps
    if first.coarse is None:
        return [first, *rest], None, ""
    stage = search.coarse
    assert stage is not None, "a plan with a coarse stage was made for an index without one"
    found = ready(search, stage, first.coarse, first.keep)
    if isinstance(found, str):
        standing_in = [first._replace(coarse=None)] if stage.scans else []
        return [*standing_in, *rest], None, f"in place of {first.coarse}: {found}"
    return [first, *rest], Proposer(found, first.coarse, first.budget, first.keep, k, stage.scans), ""


def ready(search: Search, stage: CoarseStage, source: Coarse, keep: int) -> Ready | str:
    """What serves ``search`` with ``keep`` candidates for each query, or why the coarse stage can't.

    Raises:
        MissingDependencyError: FAISS is not installed. BackendError: this version does not know this kind of stage.
    """
    if stage.scans and search.sources is not None:
        return "few documents are allowed, so that each is compared"
    return stage.ready(search.snapshot, keep, filtered=search.kept is not None, names=frozenset(source.settings))


def _best(search: Search, budget: Budget, candidates: NDArray[np.int64] | None, k: int) -> NDArray[np.int64]:
    """The rows int64 [B, k] of the best ``candidates`` [B, C] or [1, C], or of all that are allowed, at a budget."""
    request = search.request(budget, candidates, k)
    scores, rows = np.empty(request.output_shape, np.float32), np.empty(request.output_shape, np.int64)
    windows.score(search.registry.choose(request, search.scorer).scorer, request, scores, rows)
    return rows
