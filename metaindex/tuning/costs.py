"""What stages cost on this index and machine, in the unit of an objective: each measured when it is first asked for."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from metaindex.execution import executor
from metaindex.execution.executor import Search
from metaindex.planning.plan import Step
from metaindex.tuning.outcome import Objective
from metaindex.types import Budget

_CALLS = 7
_ENOUGH = 0.15  # seconds of calls, after which the median of two will do
_FEW, _MANY = 128, 4096  # candidates between which the cost of a later stage is taken to rise by a straight line


class Sample(NamedTuple):
    """What one query costs: seconds and document bytes."""

    seconds: float
    nbytes: float


class StageCosts:
    """The cost per query of first stages by how many they keep, and of later ones by how many candidates they get.

    Latency is measured on single queries, throughput on batches of ``batch``. Both are straight lines through two measured
    points, which is enough to tell which plans are worth measuring.
    """

    def __init__(self, search: Search, objective: Objective, batch: int, seed: int) -> None:
        self._search, self._objective = search, objective
        self._size = min(len(search.queries), batch if objective == "throughput" else 1)
        self._random = np.random.default_rng(seed)
        self._first: dict[Step, Sample] = {}
        self._later: dict[tuple[Budget, str | None, int], Sample] = {}

    def first(self, step: Step, most: int) -> float:
        """The cost of a first stage, which keeps at most ``most`` in any plan."""
        keep = min(step.keep, most)
        few = min(_FEW, most)
        if keep <= few:
            return self._value(self._first_sample(step._replace(keep=few)))
        low, high = (self._value(self._first_sample(step._replace(keep=each))) for each in (few, most))
        return low + (high - low) * (keep - few) / (most - few)

    def later(self, budget: Budget, candidates: int, early: str | None = None) -> float:
        """The cost of a stage that gets so many candidates for each query; ``early`` as in ``Step``."""
        few, many = (min(each, self._search.available) for each in (_FEW, _MANY))
        low, high = (self._value(self._later_sample(budget, early, count)) for count in (few, many))
        if many == few:
            return low * candidates / few
        return max(low + (high - low) * (candidates - few) / (many - few), low * candidates / (2 * few))

    def _value(self, sample: Sample) -> float:
        return sample.nbytes if self._objective == "bytes" else sample.seconds

    def _first_sample(self, step: Step) -> Sample:
        if step not in self._first:
            self._first[step] = self._measured(step, None)
        return self._first[step]

    def _later_sample(self, budget: Budget, early: str | None, count: int) -> Sample:
        if (budget, early, count) not in self._later:
            self._later[budget, early, count] = self._measured(Step(budget, max(1, count // 8), early=early), count)
        return self._later[budget, early, count]

    def _measured(self, step: Step, candidates: int | None) -> Sample:
        """One stage alone, each call on other queries and candidates. The first, which may load levels, does not count where it
        is short."""
        seconds: list[float] = []
        standing = self._search.snapshot.standing if self._search.kept is None else self._search.kept
        for call in range(1 + _CALLS):
            places = self._random.integers(0, len(self._search.queries), self._size)
            search = replace(self._search, queries=self._search.queries[places])
            rows = None
            if candidates is not None:
                rows = standing[self._random.integers(0, len(standing), (self._size, candidates))]
            begun = time.perf_counter()
            found = executor.alone(search, step, rows)
            taken = time.perf_counter() - begun
            if call or taken > _ENOUGH:
                seconds.append(taken)
            if len(seconds) >= 2 and sum(seconds) > _ENOUGH:
                break
            if self._objective == "bytes":
                seconds.append(0.0)
                break
        return Sample(statistics.median(seconds) / self._size, sum(stage.bytes for stage in found.stats) / self._size)
