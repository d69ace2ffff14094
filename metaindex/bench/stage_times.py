"""Predicted against measured stage times, over a grid of shapes that the calibration did not measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from metaindex.bench import stages
from metaindex.bench.stages import StageTimer
from metaindex.execution.executor import Search
from metaindex.index import MetaIndex
from metaindex.planning.plan import Step
from metaindex.types import Budget

BUDGETS = ((1, 1), (2, 4), (4, 8), (8, 16), (16, 64))
CANDIDATES = (100, 1000, 10_000, 50_000)
BATCHES = (1, 16)
TOKENS = 64
WITHIN = 1.5
_KEPT_SHARE = 10  # of candidates, a stage keeps one of so many
_LEAST_KEPT = 10


@dataclass
class StageTime:
    """A stage: ``candidates`` per query, 0 for a scan; its time as predicted, and as measured, the median of all turns."""

    codec: str
    dim: int
    budget: tuple[int, int]
    batch: int
    candidates: int
    kept: int
    threads: int
    predicted: float
    turns: list[float] = field(default_factory=list)

    @property
    def measured(self) -> float:
        return float(np.median(self.turns))

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured

    @property
    def good(self) -> bool:
        return abs(math.log(self.ratio)) <= math.log(WITHIN)

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "measured": self.measured, "best": min(self.turns), "ratio": self.ratio, "good": self.good}

    def __str__(self) -> str:
        what = f"gather {self.candidates:,}" if self.candidates else "scan"
        return (
            f"{self.codec:<9} d {self.dim:<4} {what:<13} ({self.budget[0]},{self.budget[1]})".ljust(40)
            + f"batch {self.batch:<3} predicted {1e3 * self.predicted:>9.3f} ms  measured {1e3 * self.measured:>9.3f} ms  "
            f"ratio {self.ratio:5.2f}{'' if self.good else '  beyond'}"
        )


def stage_times(
    codec: str,
    dim: int,
    *,
    documents: int,
    num_threads: int,
    turns: int,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[StageTime]:
    """Every shape of the grid on an index of ``documents`` random documents, once in each of ``turns`` rounds in random order.

    Raises:
        ValueError: this machine was not calibrated for ``codec``.
    """
    timer, measured = StageTimer(seed), stages.clock(num_threads)
    index = stages.index(codec, dim, documents, TOKENS)
    shapes = list(_shapes(index, timer.random, codec, dim, num_threads))
    for turn in range(turns):
        for at in timer.random.permutation(len(shapes)):
            time, search, step = shapes[at]
            time.turns.append(timer.seconds(search, step, time.candidates or None, measured, cold=bool(time.candidates)))
        progress((turn + 1) / turns)
    return [time for time, _, _ in shapes]


def _shapes(
    index: MetaIndex, random: np.random.Generator, codec: str, dim: int, num_threads: int
) -> Iterator[tuple[StageTime, Search, Step]]:
    for batch in BATCHES:
        search = replace(stages.search(index, BUDGETS[-1][0], batch, random), num_threads=num_threads)
        for budget in BUDGETS:
            for count in (0, *(each for each in CANDIDATES if each <= len(index))):
                kept = max(_LEAST_KEPT, count // _KEPT_SHARE)
                step = Step(Budget(*budget), kept)
                predicted = search.predicted("cpu", step, (batch, count) if count else None)
                if predicted is None:
                    raise ValueError(f"{codec}: this machine was not calibrated; run metaindex doctor --calibrate first")
                yield StageTime(codec, dim, budget, batch, count, kept, num_threads, predicted), search, step


def summary(times: Sequence[StageTime]) -> str:
    """How many stages were predicted within the factor, by codec and kind."""
    lines = []
    for codec in dict.fromkeys(time.codec for time in times):
        for kind, gathers in (("scans", False), ("gathers", True)):
            chosen = [time for time in times if time.codec == codec and bool(time.candidates) == gathers]
            lines.append(_share(f"{codec} {kind}", chosen))
    return "\n".join([*lines, _share("all", times)])


def _share(name: str, times: Sequence[StageTime]) -> str:
    good = sum(time.good for time in times)
    errors = sorted(max(time.ratio, 1 / time.ratio) for time in times)
    ninth = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    return (
        f"{name:<18} {good:>4} of {len(times):>4} within a factor of {WITHIN} ({good / len(times):.0%}); nine in ten within "
        f"{ninth:.2f}"
    )
