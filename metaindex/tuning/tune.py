"""``MetaIndex.tune``: from queries to the cheapest plan that finds what the exact search finds, within a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.asking import Searches
from metaindex.execution import executor
from metaindex.execution.executor import Search
from metaindex.planning.plan import Plan, Stage, Step
from metaindex.tuning.candidates import Budgets, Candidates, most_kept
from metaindex.tuning.cascades import Cheapest
from metaindex.tuning.clock import Clock
from metaindex.tuning.measure import HeldOut, measured
from metaindex.tuning.outcome import Measured, Tuning
from metaindex.tuning.proposers import proposers
from metaindex.tuning.request import Request
from metaindex.tuning.training import wanted
from metaindex.types import Budget

FEWEST_QUERIES = 20
_MOST_QUERIES = 1024
_MEASURED = 2  # plans of each recall
_LEAST_SECONDS = 2.0  # for measuring them, however late it is

# Shares of the time: exact results as far as their time can be foreseen; half of what is left to search plans in numbers, the
# rest to measure the best of them.
_EXACT, _LEAST_SEARCHED = 0.3, 0.2


def tune(searches: Searches, search: Search, budget: Budget, request: Request, clock: Clock) -> Tuning:
    """The cheapest plan for the queries of ``search`` that reaches the target against the exact result at ``budget``.

    Raises:
        ValueError: too few queries, no documents, not one dict of judgements for each query, no relevant document among the
            exact hits, a coarse stage that can't serve.
        TypeError: judgements by ids that are not of the index's kind.
        PlanError: a plan or coarse stage that was given does not fit.
    """
    budgets = Budgets(searches, search, budget)
    for plan in request.plans:
        searches.steps(search, None, None, plan, request.k)
    for source in request.coarse or ():
        budgets.step(source, request.k)
    train, held, relevant, fewer = _split(search, budget, request, clock)
    coarse = proposers(train, request.k, most_kept(train), request.objective, request.coarse)
    clock.tell(0.02, "the exact result of training queries")
    target = wanted(train, budget, request.k)
    clock.tell(_EXACT / 2, "the exact result of held-out queries")
    held_out = HeldOut(held, budget, wanted(held, budget, request.k), request.k, relevant, request.seed)
    if relevant is not None and not held_out.qualities(held_out.target.best)[0].any():
        raise ValueError(
            f"qrels: the exact search finds no relevant document of {len(relevant)} held-out queries among its {request.k} "
            "best, which leaves no plan anything to keep; expected gains by the ids of this index, for each query in its order"
        )
    candidates = Candidates(budgets, train, target, request, coarse)
    begun = clock.share
    searched = begun + max(_LEAST_SEARCHED, (1 - begun) / 2)
    best = candidates.find(clock, begun, searched)
    clock.tell(searched, "measuring")
    exact_plan = Plan([Stage(budgets.last)])
    runs = _measured(searches, held_out, [exact_plan, *request.plans], best, request.batch, clock)
    exact = next(run for run in runs if run.plan == exact_plan)
    goal = request.target * (1.0 if relevant is None else exact.quality)
    reaching = [run for run in runs if run.quality >= goal - 1e-9]
    chosen = min(reaching, key=lambda run: (run.cost(request.objective), run.exact))
    clock.tell(1.0, "done")
    return Tuning(
        plan=chosen.plan,
        reached=not chosen.exact,
        metric="recall" if relevant is None else "nDCG",
        k=request.k,
        target=goal,
        objective=request.objective,
        batch=request.batch,
        runs=tuple(sorted(runs, key=lambda run: run.cost(request.objective))),
        exact=exact,
        queries=(len(train.queries), len(held.queries)),
        seconds=clock.seconds,
        seed=request.seed,
        stopped=candidates.stopped or fewer,
    )


def _split(
    search: Search, budget: Budget, request: Request, clock: Clock
) -> tuple[Search, Search, list[Mapping[Any, float]] | None, bool]:
    """Training and held-out queries, drawn by the seed, and the judgements of the latter: as many as the exact search can
    answer in its share of the time. Last whether that is fewer than there are to use."""
    count, qrels = len(search.queries), request.qrels
    if qrels is not None and len(qrels) != count:
        raise ValueError(f"qrels: expected {count} dicts of gains, one for each query, got {len(qrels)}")
    if qrels is not None:
        _check_ids(qrels, search.schema.id_kind)
    order = np.random.default_rng(request.seed).permutation(count)
    if qrels is not None:
        order = order[[any(gain > 0 for gain in qrels[at].values()) for at in order]]
    if len(order) < FEWEST_QUERIES:
        judged = "" if qrels is None else " with a relevant document"
        raise ValueError(f"queries: expected at least {FEWEST_QUERIES}{judged} to tune with, got {len(order)}; give more")
    if not search.available:
        raise ValueError("there is no document to search among: add some, or let the filter through more")

    def of(places: NDArray[np.int64]) -> Search:
        return replace(search, queries=search.queries[places])

    sample, step = of(order[:FEWEST_QUERIES]), Step(budget, request.k)
    executor.alone(sample, step)  # the first call of a process imports, and reads files that lie in no cache yet
    begun = time.perf_counter()
    executor.alone(sample, step)
    affordable = int(_EXACT * clock.limit * FEWEST_QUERIES / max(time.perf_counter() - begun, 1e-9))
    usable = min(len(order), _MOST_QUERIES)
    used = min(usable, max(FEWEST_QUERIES, affordable))
    train, held = order[: used // 2], order[used // 2 : used]
    return of(train), of(held), None if qrels is None else [qrels[at] for at in held], used < usable


def _check_ids(qrels: Sequence[Mapping[Any, float]], kind: str | None) -> None:
    """An id of the other kind is no document's, so that nothing would be relevant."""
    for place, gains in enumerate(qrels):
        for id_ in gains:
            given = "text" if isinstance(id_, str) else "int" if _is_integer(id_) else type(id_).__name__
            if kind is not None and given != kind:
                raise TypeError(f"qrels[{place}]: this index has {kind} ids, got {given} ids such as {id_!r}")


def _is_integer(id_: Any) -> bool:
    return isinstance(id_, (int, np.integer)) and not isinstance(id_, bool)


def _measured(
    searches: Searches, held_out: HeldOut, given: list[Plan], best: Cheapest, batch: int, clock: Clock
) -> list[Measured]:
    trained = {each.plan: each.recall for kept in best.found.values() for each in kept[:_MEASURED]}
    plans = {plan: searches.steps(held_out.search, None, None, plan, held_out.k)[1] for plan in (*given, *trained)}
    return measured(held_out, plans, trained, batch, max(_LEAST_SECONDS, clock.limit - clock.seconds))
