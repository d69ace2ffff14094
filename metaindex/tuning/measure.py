"""The plans that are worth it, measured on held-out queries: quality, time in turns, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.evaluation.metrics import ndcg_at_k, recall_at_k
from metaindex.execution import executor
from metaindex.execution.executor import Search
from metaindex.planning.plan import Plan, Step
from metaindex.timing import Timing, interleave
from metaindex.tuning.intervals import bootstrap, wilson
from metaindex.tuning.outcome import Measured
from metaindex.tuning.training import Wanted
from metaindex.types import Budget

_ROUNDS = 5
_TURN_SECONDS = 0.2


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Queries that the search for plans did not see, and what is right for them: the exact result at ``budget``, and where
    there are judgements the gains of documents, for each query."""

    search: Search
    budget: Budget
    target: Wanted
    k: int
    relevant: Sequence[Mapping[Any, float]] | None
    seed: int

    def recalls(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The recall of each query whose hits are ``rows`` [Q, k]."""
        scores = executor.gather(self.search, self.budget, rows)
        return recall_at_k(scores, self.target.scores, self.k, tolerance=self.target.tie)

    def qualities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], float, float]:
        """The recall of each query, or its nDCG, and the interval of the mean."""
        if self.relevant is None:
            values = self.recalls(rows)
            return values, *wilson(values)
        ids = self.search.snapshot.ids_at(np.maximum(rows, 0))
        hits = [[id_ for id_, row in zip(named, here) if row >= 0] for named, here in zip(ids.tolist(), rows.tolist())]
        values = ndcg_at_k(hits, self.relevant, self.k)
        values = values[~np.isnan(values)]
        return values, *bootstrap(values, self.seed)


def measured(
    held_out: HeldOut, plans: Mapping[Plan, tuple[Step, ...]], trained: Mapping[Plan, float], batch: int, seconds: float
) -> list[Measured]:
    """Every plan, given with its steps, searched in batches of ``batch`` by turns, for about ``seconds`` in all."""
    asked = _batches(held_out.search, batch)
    turns = {str(plan): _Turns(asked, steps, held_out.k) for plan, steps in plans.items()}
    turn = min(_TURN_SECONDS, seconds / (len(turns) * _ROUNDS))
    timings = interleave(turns, rounds=_ROUNDS, turn_seconds=turn, limit_seconds=seconds)
    return [
        _measured(held_out, plan, steps, timings[str(plan)], turns[str(plan)], trained.get(plan))
        for plan, steps in plans.items()
    ]


class _Turns:
    """Searches one batch after another by one plan, and remembers what they read."""

    def __init__(self, asked: Sequence[Search], steps: tuple[Step, ...], k: int) -> None:
        self._upcoming, self._steps, self._k = cycle(asked), steps, k
        self.queries = len(asked[0].queries)
        self._read: list[int] = []

    def __call__(self) -> None:
        found = executor.run(next(self._upcoming), self._steps, self._k)
        self._read.append(sum(stage.bytes for stage in found.stats))

    @property
    def nbytes(self) -> float:
        """Bytes per query."""
        return float(np.mean(self._read)) / self.queries


def _measured(
    held_out: HeldOut, plan: Plan, steps: tuple[Step, ...], timing: Timing, turns: _Turns, trained: float | None
) -> Measured:
    exact = len(steps) == 1 and steps[0].budget == held_out.budget
    rows = held_out.target.best if exact else executor.run(held_out.search, steps, held_out.k).rows
    values, low, high = held_out.qualities(rows)
    recall = values if held_out.relevant is None else held_out.recalls(rows)
    return Measured(
        plan=plan,
        quality=float(values.mean()),
        low=low,
        high=high,
        recall=float(recall.mean()),
        ms=1e3 * timing.median / turns.queries,
        nbytes=turns.nbytes,
        trained=trained,
        exact=exact,
    )


def _batches(search: Search, batch: int) -> list[Search]:
    size = min(batch, len(search.queries))
    starts = range(0, len(search.queries) - size + 1, size)
    return [replace(search, queries=search.queries[start : start + size]) for start in starts]
