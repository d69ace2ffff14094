"""Cascades in numbers: the cheapest plans that reach a recall, from ranks and costs alone. Nothing runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaindex.planning.plan import Coarse, Exact, Plan, Stage
from metaindex.tuning.training import LOST, Wanted

_MOST_STAGES = 4
_KEPT = 3  # the cheapest plans of each recall


@dataclass(frozen=True, eq=False)
class FirstStage:
    """A first stage as the search for plans sees it.

    ``cost(keep)``: of the stage. ``ranks`` int32 [Q, g]: where the wanted documents stand. ``keeps``: the numbers of documents
    to try where another stage follows, rising. ``later``: for each budget that may follow, from cheap to dear, the ranks int32
    [len(keeps), Q, g] among the first n.
    """

    source: Exact | Coarse
    cost: Callable[[int], float]
    ranks: NDArray[np.int32]
    keeps: Sequence[int] = ()
    later: Mapping[Exact, NDArray[np.int32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A plan worth measuring: the cost that is expected, and the recall that it reaches at least on the training queries."""

    plan: Plan
    cost: float
    recall: float


@dataclass
class Cheapest:
    """The cheapest plans found for each recall of ``ladder``, rising: those that cost less than ``limit``."""

    ladder: Sequence[float]
    limit: float
    found: dict[float, list[Candidate]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found = {target: [] for target in self.ladder}

    def bound(self, target: float) -> float:
        """What a plan must stay below to be worth keeping."""
        kept = self.found[target]
        return kept[-1].cost if len(kept) == _KEPT else self.limit

    def offer(self, target: float, candidate: Candidate) -> None:
        kept = [each for each in self.found[target] if each.plan != candidate.plan]
        self.found[target] = sorted([*kept, candidate], key=lambda each: each.cost)[:_KEPT]

    def __iter__(self) -> Iterator[Candidate]:
        """Each plan once, the cheapest first."""
        plans = {each.plan: each for kept in self.found.values() for each in kept}
        return iter(sorted(plans.values(), key=lambda each: each.cost))


class Cascades:
    """Searches plans that begin with one first stage after another and end at ``last``, the budget of the exact search.

    ``cost(budget, candidates)``: of a later stage. A stage's recall falls with its keep, so the smallest keep that still
    reaches a recall is found by bisection; that of the stages before it is tried in steps.
    """

    def __init__(self, target: Wanted, last: Exact, k: int, cost: Callable[[Exact, int], float], best: Cheapest) -> None:
        self._target, self._last, self._k, self._cost, self.best = target, last, k, cost, best

    def search(self, first: FirstStage, goals: Sequence[float]) -> None:
        """Plans for each recall of ``goals``, some of the ladder's."""
        for target in reversed(goals):
            least = least_keep(self._target, first.ranks, first.ranks < LOST, target, self._k)
            if least is not None:
                self._offer(target, [Stage(first.source, least)], first.ranks <= least, first.cost(least), least)
                self._from(first, least, target)

    def _from(self, first: FirstStage, least: int, target: float) -> None:
        for at, keep in enumerate(first.keeps):
            if keep < least:
                continue
            cost = first.cost(keep)
            if cost >= self.best.bound(target):
                break
            self._climb(first, at, [Stage(first.source, keep)], first.ranks <= keep, cost, list(first.later), target)

    def _climb(
        self,
        first: FirstStage,
        at: int,
        stages: list[Stage],
        kept: NDArray[np.bool_],
        cost: float,
        budgets: Sequence[Exact],
        target: float,
    ) -> None:
        """One more stage after ``stages``, which let ``kept`` [Q, g] through, and then the last one, or still more.

        Ranks are those among all that the first stage keeps. Among the fewer that the stages in between let through a rank can
        only be better, so a plan's recall is at least what is counted here.
        """
        before = stages[-1].keep or 0
        for place, budget in enumerate(budgets):
            spent = cost + self._cost(budget, before)
            if spent + self._ending(self._k) >= self.best.bound(target):
                continue
            ranks = first.later[budget][at]
            least = least_keep(self._target, ranks, kept, target, self._k)
            if least is None or least > before:
                continue
            through = kept & (ranks <= least)
            self._offer(target, [*stages, Stage(budget, least)], through, spent, least)
            if len(stages) + 2 >= _MOST_STAGES:
                continue
            for keep in _steps(least, before):
                more = [*stages, Stage(budget, keep)]
                self._climb(first, at, more, kept & (ranks <= keep), spent, _above(budget, budgets[place + 1 :]), target)

    def _offer(self, target: float, stages: list[Stage], kept: NDArray[np.bool_], cost: float, keep: int) -> None:
        """The plan that ranks what ``stages`` keep; where they keep just k, their own order is the answer."""
        plans = [(Plan([*stages, Stage(self._last)]), cost + self._ending(keep))]
        if keep == self._k and self._may_end(stages):
            plans.append((Plan([*stages[:-1], Stage(stages[-1].source)]), cost))
        for plan, total in plans:
            if total < self.best.bound(target):
                self.best.offer(target, Candidate(plan, total, self._target.recall(kept)))

    def _may_end(self, stages: list[Stage]) -> bool:
        """Whether the last of ``stages`` may be a plan's last. A coarse stage goes by as many query tokens as that has."""
        source = stages[-1].source
        if not isinstance(source, Exact) or source.early is not None:
            return False
        return isinstance(stages[0].source, Exact) or source.r_q == self._last.r_q

    def _ending(self, candidates: int) -> float:
        return self._cost(self._last, candidates)


def least_keep(wanted: Wanted, ranks: NDArray[np.int32], kept: NDArray[np.bool_], target: float, k: int) -> int | None:
    """The smallest keep of at least ``k`` whose recall is ``target``, of the documents ``kept`` [Q, g] until then; ``None``:
    no keep's is."""
    present = kept & (ranks < LOST)
    tried = np.unique(np.maximum(ranks[present], k))
    low, high = 0, len(tried)
    while low < high:
        middle = (low + high) // 2
        if wanted.recall(present & (ranks <= tried[middle])) >= target - 1e-9:
            high = middle
        else:
            low = middle + 1
    return int(tried[low]) if low < len(tried) else None


def _steps(least: int, most: int) -> Iterator[int]:
    """Keeps from a little above ``least`` on, where another stage is to make up for what is too many."""
    keep = least
    for _ in range(4):
        keep = max(keep + 1, round(1.6 * keep))
        if keep > most:
            return
        yield keep


def _above(budget: Exact, budgets: Sequence[Exact]) -> list[Exact]:
    """Those of ``budgets`` that may follow ``budget``."""
    return [each for each in budgets if each != budget and not shrinks(budget, each)]


def shrinks(lower: Exact, higher: Exact) -> bool:
    """Whether a side of ``higher`` has fewer tokens than that of ``lower``; ``None`` is all of them."""
    sides = ((lower.r_q, higher.r_q), (lower.r_c, higher.r_c))
    return any(after is not None and (before is None or after < before) for before, after in sides)
