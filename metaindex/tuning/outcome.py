"""What a tuning found: the plans it measured, and the one it chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from metaindex.planning.plan import Plan
from metaindex.planning.size import human

Objective = Literal["latency", "throughput", "bytes"]


@dataclass(frozen=True)
class Measured:
    """One plan as it was measured on the held-out queries.

    ``recall``: the mean recall@k against the exact result, by score; ``quality``: the same, or with judgements the mean nDCG@k.
    ``low`` and ``high``: a 95 % interval of ``quality``. ``ms``: milliseconds per query, the median over searches. ``nbytes``:
    document bytes per query. ``trained``: the recall that was counted on the training queries, which the plan reaches at least;
    ``None`` for plans that were given. ``exact``: it compares everything at the budget.
    """

    plan: Plan
    quality: float
    low: float
    high: float
    recall: float
    ms: float
    nbytes: float
    trained: float | None = None
    exact: bool = False

    def cost(self, objective: Objective) -> float:
        return self.nbytes if objective == "bytes" else self.ms


@dataclass(frozen=True)
class Tuning:
    """The outcome of ``MetaIndex.tune``; ``index.set_default(tuning)`` makes its plan the index's own.

    ``plan``: the cheapest measured plan that reaches the target on the held-out queries: the exact search where ``reached`` is
    False. ``target``: the least mean ``quality``: of recall, or of nDCG, a share of what the exact search has. ``runs``: all
    plans that were measured, the cheapest first, and ``exact``: the exact search among them. ``batch``: queries per search.
    ``queries``: how many were used for training and held out. ``stopped``: the time allowed fewer
    queries than there were, or was up before all plans were looked at.
    """

    plan: Plan
    reached: bool
    metric: str
    k: int
    target: float
    objective: Objective
    batch: int
    runs: tuple[Measured, ...]
    exact: Measured
    queries: tuple[int, int]
    seconds: float
    seed: int
    stopped: bool

    @property
    def chosen(self) -> Measured:
        return next(run for run in self.runs if run.plan == self.plan)

    @property
    def frontier(self) -> tuple[Measured, ...]:
        """The runs that no cheaper one matches in quality, the cheapest first."""
        kept: list[Measured] = []
        for run in sorted(self.runs, key=lambda run: (run.cost(self.objective), -run.quality)):
            if not kept or run.quality > kept[-1].quality:
                kept.append(run)
        return tuple(kept)

    def rows(self) -> list[dict[str, Any]]:
        """The runs as plain values, for JSON."""
        frontier = self.frontier
        return [
            {
                **{
                    name: getattr(run, name)
                    for name in ("quality", "low", "high", "recall", "ms", "nbytes", "trained", "exact")
                },
                "plan": str(run.plan),
                "metric": self.metric,
                "k": self.k,
                "frontier": run in frontier,
                "chosen": run.plan == self.plan,
            }
            for run in self.runs
        ]

    def __str__(self) -> str:
        width = max(len(str(run.plan)) for run in self.runs)
        lines = [
            f"{self.metric}@{self.k} of at least {self.target:.4g}, least {self.objective}"
            f"{f' in batches of {self.batch}' if self.batch > 1 else ''}: {self.queries[0]} training and {self.queries[1]} "
            f"held-out queries, {self.seconds:.1f} s{', stopped as the time was up' if self.stopped else ''}",
            f"  {'plan':<{width}}  {self.metric:>7}  {'95 % interval':<15}  {'ms':>9}  {'read':>10}",
        ]
        frontier = self.frontier
        for run in self.runs:
            mark = "*" if run.plan == self.plan else "-" if run in frontier else " "
            lines.append(
                f"{mark} {run.plan!s:<{width}}  {run.quality:>7.4f}  [{run.low:.3f}, {run.high:.3f}]   {run.ms:>9.3f}  "
                f"{human(run.nbytes):>10}{'  exact' if run.exact else ''}"
            )
        return "\n".join([*lines, f"* chosen, - on the frontier; {self._verdict()}"])

    def _verdict(self) -> str:
        chosen, cost = self.chosen, self.exact.cost(self.objective)
        if self.reached:
            saved = cost / max(chosen.cost(self.objective), 1e-12)
            return f"the chosen plan costs 1/{saved:.1f} of the exact search"
        others = [run for run in self.runs if not run.exact]
        if not others:
            return "no cheaper plan than the exact search was found"
        best = max(others, key=lambda run: run.quality)
        return f"no cheaper plan reaches the target; the best other is {best.plan}, {best.quality:.4f}"
