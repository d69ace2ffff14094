"""Plans that are worth measuring: first stages from cheap to dear, and what may follow each, searched in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.asking import Searches, sides
from metaindex.execution.executor import Search
from metaindex.planning.plan import Coarse, Exact, Plan, Stage, Step
from metaindex.tuning.cascades import Cascades, Cheapest, FirstStage, least_keep, shrinks
from metaindex.tuning.clock import Clock
from metaindex.tuning.costs import StageCosts
from metaindex.tuning.request import Request
from metaindex.tuning.training import LOST, Proposals, Wanted
from metaindex.types import Budget

_MOST_KEPT = 1 << 15
_KEEPS = 8  # so many are tried where another stage follows
_FACTOR = 1.4  # from one to the next
# Plans are also sought for better recalls than the target's, so that there is one to take where those that reach it on the
# training queries fall short on the held-out ones: shares of what the target leaves to miss. The first few are always sought.
_MARGINS = (0.0, 0.2, 0.5, 0.9, 1.0)
_SOUGHT = 3
_SCOUTS = 32  # queries
_SLACK = 0.03  # by which their recall may be too low
_ROOM = 3  # how many times what they need a first stage gives to all queries
_WORTH = 0.9  # of the exact search's cost, beyond which neither a first stage nor one of more tokens is looked at
_SMALLEST = 6  # budgets, which are looked at before coarse stages
_LEAST_STEP = 0.1  # of the time
_ALIKE = 1.1  # a budget is passed over where a larger one costs no more than this times as much
_LOWER = (0.5, 0.8, 0.9, 0.95, 0.98)  # recalls below the target that the frontier shows


class Budgets:
    """The budgets that stages may have, up to ``last``: doubling numbers of query tokens, and the edges of levels; each by the
    levels and, where there is an early copy, by that."""

    def __init__(self, searches: Searches, search: Search, last: Budget) -> None:
        self._searches, self._search = searches, search
        self._whole = Budget(*sides(search, last))
        self.last = self._source(last)
        r_q = {min(1 << n, last.r_q) for n in range(last.r_q.bit_length() + 1)}
        r_c = {*(edge for edge in search.snapshot.levels.edges if edge < last.r_c), last.r_c}
        self.all = {self._source(Budget(q, c)): Budget(q, c) for q in sorted(r_q) for c in sorted(r_c)}
        if (early := search.schema.early) is not None:
            self.all |= {replace(source, early=early): budget for source, budget in self.all.items()}

    def _source(self, budget: Budget) -> Exact:
        """``*`` for all tokens of a side: such a plan stays right as documents grow longer."""
        r_q, r_c = (None if side == whole else side for side, whole in zip(budget, self._whole))
        return Exact(r_q, r_c)

    @property
    def lower(self) -> list[Exact]:
        return [each for each in self.all if each != self.last]

    def step(self, source: Exact | Coarse, keep: int) -> Step:
        """A first stage as a step of the executor, which is what knows coarse stages."""
        _, steps = self._searches.steps(self._search, None, None, Plan([Stage(source, keep), Stage(self.last)]), 1)
        return steps[0]


def most_kept(search: Search) -> int:
    """How many documents a first stage may keep."""
    return min(_MOST_KEPT, search.available - 1)


class Candidates:
    """Searches for plans until none can be cheaper than what was found, or the time is up, of which ``stopped`` tells.

    First a few queries look at every first stage: they tell how many documents it has to keep, and so which stages can be part
    of a cheap plan at all. These, the most promising ones first, are then looked at with all training queries.

    ``coarse``: coarse stages, and how many documents each may be asked for.
    """

    def __init__(self, budgets: Budgets, train: Search, target: Wanted, request: Request, coarse: Mapping[Coarse, int]) -> None:
        self._budgets, self._train, self._target, self._request, self._proposers = budgets, train, target, request, coarse
        self._costs = StageCosts(train, request.objective, request.batch, request.seed)
        self._most = most_kept(train)
        self._goals = sorted({request.target + share * (1 - request.target) for share in _MARGINS})
        self._lower = [each for each in _LOWER if each < request.target]
        self.stopped = False

    def find(self, clock: Clock, start: float, stop: float) -> Cheapest:
        """The cheapest plans, found within the shares ``start`` to ``stop`` of the time."""
        best = Cheapest(sorted({*self._goals, *self._lower}), 0.0)
        if self._most < self._request.k:
            return best
        clock.tell(start, "costs of stages")
        best.limit = self._first_cost(self._budgets.last, self._request.k)
        later = {each: self._later_cost(each, self._request.k) for each in self._budgets.all}
        following = list(_worth_it({each: later[each] for each in self._budgets.lower}))
        firsts = self._firsts(best.limit, clock, _until(clock, stop, 1 / 3))
        cascades = Cascades(self._target, self._budgets.last, self._request.k, self._later_cost, best)
        promising = self._promising(_worth_it(firsts), following, best, clock, _until(clock, stop, 1 / 3))
        start, stop = clock.share, _until(clock, stop, 1.0)
        for number, (source, (bound, keep)) in enumerate(promising.items()):
            if self._late(clock, stop):
                break
            clock.tell(start + (stop - start) * number / len(promising), f"plans that begin with {source}")
            if bound < max(best.bound(goal) for goal in self._goals[:_SOUGHT]):
                cascades.search(self._first(source, keep, following, best), best.ladder)
        return best

    def _firsts(self, limit: float, clock: Clock, stop: float) -> dict[Exact | Coarse, float]:
        """First stages and what they cost, from few tokens to many, without those that cost about ``limit``."""
        found, dear = dict[Exact | Coarse, float](), list[Exact]()
        lower = sorted(self._budgets.lower, key=lambda source: math.prod(self._budgets.all[source]))
        sources: list[Exact | Coarse] = [*lower[:_SMALLEST], *self._proposers, *lower[_SMALLEST:]]
        for source in sources:
            if self._late(clock, stop):
                break
            if isinstance(source, Coarse):
                found[source] = self._first_cost(source, self._request.k)
                continue
            if any(not shrinks(each, source) for each in dear):
                continue
            cost = self._first_cost(source, self._request.k)
            if cost < _WORTH * limit:
                found[source] = cost
            else:
                dear.append(source)
        return found

    def _late(self, clock: Clock, share: float) -> bool:
        late = clock.past(share)
        self.stopped |= late
        return late

    def _promising(
        self,
        firsts: Mapping[Exact | Coarse, float],
        following: list[Exact],
        best: Cheapest,
        clock: Clock,
        stop: float,
    ) -> dict[Exact | Coarse, tuple[float, int]]:
        """First stages by a lower bound of what plans that begin with them cost, and how many documents each should keep at
        most, judged by a few of the queries. These also give plans of lower recalls than the target to ``best``."""
        few = np.arange(min(_SCOUTS, len(self._train.queries)))
        scouts, target = replace(self._train, queries=self._train.queries[few]), self._target[few]
        short = Cascades(target, self._budgets.last, self._request.k, self._later_cost, best)
        bounds = dict[Exact | Coarse, tuple[float, int]]()
        start = clock.share
        for number, (source, cost) in enumerate(firsts.items()):
            bounds[source] = cost, self._most_of(source)
            if clock.past(stop):
                continue
            clock.tell(start + (stop - start) * number / len(firsts), f"a first look at {source}")
            ranks = Proposals(scouts, self._budgets.step(source, self._most_of(source)), target).ranks
            short.search(FirstStage(source, partial(self._first_cost, source), ranks), self._lower)
            bounds[source] = self._bound(source, target, ranks, [*self._after(source, following), self._budgets.last])
        return {source: bounds[source] for source in sorted(bounds, key=lambda source: bounds[source])}

    def _bound(self, source: Exact | Coarse, target: Wanted, ranks: NDArray[np.int32], after: list[Exact]) -> tuple[float, int]:
        keep, better = (
            least_keep(target, ranks, ranks < LOST, recall, self._request.k)
            for recall in (self._request.target - _SLACK, self._goals[:_SOUGHT][-1])
        )
        most = self._most_of(source)
        if keep is None:
            return float("inf"), most
        ending = self._later_cost(self._budgets.last, self._request.k)
        cost = self._first_cost(source, keep) + ending + min(self._later_cost(each, keep) for each in after)
        return cost, most if better is None else min(most, _ROOM * better)

    def _most_of(self, source: Exact | Coarse) -> int:
        return self._most if isinstance(source, Exact) else self._proposers[source]

    def _first_cost(self, source: Exact | Coarse, keep: int) -> float:
        return self._costs.first(self._budgets.step(source, keep), self._most_of(source))

    def _later_cost(self, source: Exact, candidates: int) -> float:
        return self._costs.later(self._budgets.all[source], candidates, source.early)

    @staticmethod
    def _after(source: Exact | Coarse, following: list[Exact]) -> list[Exact]:
        return [each for each in following if not (isinstance(source, Exact) and (each == source or shrinks(source, each)))]

    def _first(self, source: Exact | Coarse, most: int, following: list[Exact], best: Cheapest) -> FirstStage:
        proposals = Proposals(self._train, self._budgets.step(source, most), self._target)
        after = self._after(source, following)
        cheapest = [*after, self._budgets.last][0]
        least = least_keep(self._target, proposals.ranks, proposals.ranks < LOST, self._goals[0], self._request.k)
        keeps: list[int] = []
        limit = max(best.bound(goal) for goal in self._goals[:_SOUGHT])
        if least is not None:
            keeps = [
                keep
                for keep in _keeps(least, proposals.keep)
                if self._first_cost(source, keep) + self._later_cost(cheapest, keep) < limit
            ]
        later: dict[Exact, NDArray[np.int32]] = {}
        for each in after if keeps else ():
            spent = self._first_cost(source, keeps[0]) + self._later_cost(each, keeps[0])
            if spent + self._later_cost(self._budgets.last, self._request.k) < limit:
                later[each] = proposals.later(self._budgets.all[each], keeps, each.early)
        return FirstStage(source, partial(self._first_cost, source), proposals.ranks, keeps, later)


def _until(clock: Clock, stop: float, share: float) -> float:
    """Until when a step may take ``share`` of the time to ``stop``; none is left out where steps before it took too long."""
    return clock.share + max(_LEAST_STEP, share * (stop - clock.share))


def _keeps(least: int, most: int) -> list[int]:
    """Numbers of documents from ``least`` on up to all that a first stage gives, rising by a factor."""
    return sorted({min(most, round(least * _FACTOR**step)) for step in range(_KEEPS)})


def _worth_it(costs: Mapping[Any, float]) -> dict[Any, float]:
    """Sources from cheap to dear, without those budgets that a larger one gives for about the same price."""

    def beaten(source: Any) -> bool:
        return isinstance(source, Exact) and any(
            isinstance(other, Exact) and other != source and not shrinks(source, other) and _beats(source, other)
            for other in costs
        )

    def _beats(source: Exact, other: Exact) -> bool:
        if shrinks(other, source):
            return costs[other] <= _ALIKE * costs[source]
        return (costs[other], other.early is not None) < (costs[source], source.early is not None)  # one budget, two codecs

    return {source: costs[source] for source in sorted(costs, key=lambda source: costs[source]) if not beaten(source)}
