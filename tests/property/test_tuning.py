"""Recalls that the tuner counts in numbers against searches that run, and plans that cover everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.planning.plan import Exact, Plan, Stage, Step
from metaindex.tuning.cascades import Cascades, Cheapest, FirstStage
from metaindex.tuning.training import LOST, Proposals, wanted
from metaindex.types import Budget

DIM = 3


@st.composite
def indexes(draw):
    """Documents of few small whole numbers, so that scores are exact and ties are many; some removed; queries; k."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, most = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    spread = draw(st.sampled_from([1, 2, 9]))
    documents = [rng.integers(-spread, spread + 1, (int(rng.integers(1, most + 1)), DIM)) for _ in range(count)]
    index = MetaIndex(codec="float32", doc_tokens=most)
    index.add([each.astype(np.float32) for each in documents[: count // 2]])
    index.add([each.astype(np.float32) for each in documents[count // 2 :]])
    index.remove(draw(st.sets(st.integers(0, count - 1), max_size=count - 2)))
    queries = rng.integers(-spread, spread + 1, (draw(st.integers(1, 6)), draw(st.integers(1, 4)), DIM)).astype(np.float32)
    return index, queries, draw(st.integers(1, 6))


def prepared(index, queries):
    search = index._searches.prepare(queries, "auto")
    return search, Budget(queries.shape[1], search.snapshot.levels.tokens)


def measured_recall(index, queries, plan, k):
    """By score: hits that score, everything compared, at least like the k-th exact one."""
    exact = index.search(queries, k)
    found = index.search(queries, k, plan=plan)
    scores = index.score(queries, found.ids)
    values = []
    for best, here in zip(exact.scores, scores):
        expected = int(np.isfinite(best).sum())
        counted = int((here >= best[:expected].min(initial=np.inf)).sum()) if expected else 0
        values.append(min(counted, expected) / expected if expected else 1.0)
    return float(np.mean(values))


@settings(max_examples=100, deadline=None)
@given(case=indexes(), data=st.data())
def test_counted_recalls_are_those_of_the_plan(case, data):
    index, queries, k = case
    search, budget = prepared(index, queries)
    target = wanted(search, budget, k)
    r_q, r_c = data.draw(st.integers(1, budget.r_q)), data.draw(st.integers(1, budget.r_c))
    first = Proposals(search, Step(Budget(r_q, r_c), len(index)), target)
    later = Budget(data.draw(st.integers(r_q, budget.r_q)), data.draw(st.integers(r_c, budget.r_c)))
    keeps = sorted(data.draw(st.sets(st.integers(1, len(index)), min_size=1, max_size=4)))
    ranks = first.later(later, keeps)
    for at, keep in enumerate(keeps):
        if keep < k:
            continue
        counted = target.recall(first.ranks <= keep)
        assert counted == measured_recall(index, queries, f"({r_q},{r_c})>{keep} (*,*)", k)
        kept = data.draw(st.integers(k, keep))
        counted = target.recall(ranks[at] <= kept)
        plan = f"({r_q},{r_c})>{keep} ({later.r_q},{later.r_c})>{kept} (*,*)"
        assert counted == measured_recall(index, queries, plan, k)


@settings(max_examples=60, deadline=None)
@given(case=indexes(), data=st.data())
def test_the_plans_found_reach_their_recall_and_no_smaller_last_keep_does(case, data):
    index, queries, k = case
    search, budget = prepared(index, queries)
    target = wanted(search, budget, k)
    goal = data.draw(st.sampled_from([0.3, 0.6, 0.9, 1.0]))
    last, lower = Exact(), Budget(1, 1)
    middle = {Exact(1, None): Budget(1, budget.r_c), Exact(None, 1): Budget(budget.r_q, 1)}
    first = Proposals(search, Step(lower, len(index)), target)
    keeps = list(range(1, len(index) + 1, 3))
    later = {source: first.later(each, keeps) for source, each in middle.items()}
    best = Cheapest([goal], 1e9)
    cost = {last: 16.0, Exact(1, None): 4.0, Exact(None, 1): 4.0}
    cascades = Cascades(target, last, k, lambda source, n: n * cost[source], best)
    cascades.search(FirstStage(Exact(1, 1), lambda keep: 1.0 + 0.01 * keep, first.ranks, keeps, later), [goal])
    found = list(best)
    assert found or target.recall(first.ranks < LOST) < goal
    for each in found:
        recall = measured_recall(index, queries, each.plan, k)
        assert recall >= each.recall - 1e-9
        assert each.recall >= goal - 1e-9
        *climbing, end = each.plan.stages
        if len(climbing) == 1 and end.source == last and climbing[0].keep > k:
            fewer = Plan([Stage(climbing[0].source, climbing[0].keep - 1), end])
            assert measured_recall(index, queries, fewer, k) < goal


@settings(max_examples=60, deadline=None)
@given(case=indexes(), data=st.data())
def test_a_plan_whose_keeps_cover_everything_is_exact(case, data):
    index, queries, k = case
    exact = index.search(queries, k)
    most = max(k, len(index))
    stages, r_q, r_c = [], 1, 1
    for _ in range(data.draw(st.integers(1, 3))):
        r_q = data.draw(st.integers(r_q, queries.shape[1]))
        r_c = data.draw(st.integers(r_c, index.schema.levels.tokens))
        stages.append(f"({r_q},{r_c})>{most}")
    found = index.search(queries, k, plan=" ".join([*stages, "(*,*)"]))
    assert found.exact
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_array_equal(found.scores, exact.scores)
