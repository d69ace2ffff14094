"""The tuner over coarse stages: which it tries, that what it counts is what plans find, and that their plans can be kept."""

from __future__ import annotations

import numpy as np
import pytest

from metaindex import Coarse, MetaIndex, Plan
from metaindex.bench.synthetic import NestedVectors
from metaindex.errors import PlanError
from metaindex.evaluation import recall_at_k
from metaindex.evaluation.metrics import TIE
from metaindex.execution import executor
from metaindex.planning.plan import Exact
from metaindex.tuning.candidates import Budgets
from metaindex.tuning.cascades import Cascades, Cheapest, FirstStage
from metaindex.tuning.proposers import proposers
from metaindex.tuning.training import Proposals, wanted
from metaindex.types import Budget
from tests.tolerances import METRIC

pytest.importorskip("faiss", reason="faiss is not installed")

VECTORS = NestedVectors(documents=2000, doc_tokens=8, dim=16, seed=1)
QUERIES, _ = VECTORS.queries(60, 4)


def built(kind: str) -> MetaIndex:
    index = MetaIndex(codec="int8", coarse=kind, num_threads=1)
    index.add(VECTORS.batches())
    return index


@pytest.fixture(scope="module")
def lists():
    return built("IVF16,Flat")


@pytest.fixture(scope="module")
def graph():
    return built("HNSW16")


def tried(index: MetaIndex, objective="latency", asked=None, k=10, **search) -> dict[str, int]:
    prepared = index._searches.prepare(QUERIES, "auto", search.get("filter"))
    return {str(source): most for source, most in proposers(prepared, k, 1500, objective, asked).items()}


def test_lists_are_tried_from_one_to_half_of_them(lists):
    assert tried(lists) == {f"coarse(nprobe={number})": 1500 for number in (1, 2, 4, 8)}


def test_of_a_graph_no_more_is_asked_than_its_beam_is_wide(graph):
    assert tried(graph, k=20) == {f"coarse(efSearch={beam})": min(1500, beam) for beam in (32, 64, 128, 256, 512, 1024)}
    assert tried(graph, asked=[Coarse((("efSearch", 40),))]) == {"coarse(efSearch=40)": 40}
    assert tried(graph, "bytes") == {}


def test_what_has_no_parameter_is_tried_once():
    assert tried(built("Flat")) == {"coarse": 1500}
    assert tried(built("fde(repetitions=4,bits=2,dim=32),Flat")) == {"coarse": 1500}


def test_what_can_not_serve_is_not_tried(lists):
    few = range(100)  # each of which is compared
    assert tried(lists, filter=few) == {}
    with pytest.raises(ValueError, match="coarse stage serves these searches: few documents are allowed"):
        tried(lists, filter=few, asked=[Coarse()])
    without = MetaIndex()
    without.add(VECTORS.array()[:50])
    assert tried(without) == {}
    with pytest.raises(PlanError, match="no coarse stage"):
        without.tune(QUERIES, coarse=[Coarse()])
    with pytest.raises(PlanError, match="no parameter 'probes'"):
        lists.tune(QUERIES, coarse=[Coarse((("probes", 2),))])


@pytest.mark.parametrize("kind", ["IVF16,Flat", "HNSW16", "Flat", "fde(repetitions=4,bits=2,dim=32),IVF16,Flat"])
def test_counted_recalls_are_those_of_the_plan(kind):
    index, k = built(kind), 5
    search = index._searches.prepare(QUERIES, "auto")
    last = Budget(4, 8)
    target = wanted(search, last, k)
    budgets = Budgets(index._searches, search, last)
    exact = index.search(QUERIES, k, plan="(*,*)")
    tie = TIE * float(np.abs(exact.scores).max())
    for source, most in proposers(search, k, 1500, "latency", None).items():
        first = Proposals(search, budgets.step(source, most), target)
        for keep in sorted({k, min(most, 30), min(most, 300)}):
            for plan, kept in (
                (f"{source}>{keep} (*,*)", first.ranks <= keep),
                (f"{source}>{keep} (2,4)>{min(9, keep)} (*,*)", first.later(Budget(2, 4), [keep])[0] <= min(9, keep)),
            ):
                found = index.search(QUERIES, k, plan=plan)
                recall = recall_at_k(index.score(QUERIES, found.ids), exact.scores, k, tolerance=tie).mean()
                # A query whose lists hold fewer than k gets a scan on top, which training does not count.
                assert recall >= target.recall(kept) - METRIC
                if "nprobe=1)" not in plan:
                    assert recall == pytest.approx(target.recall(kept), abs=METRIC)


def test_a_plan_that_ends_with_fewer_query_tokens_does_not_begin_with_a_coarse_stage_of_all():
    target = wanted(built("Flat")._searches.prepare(QUERIES, "auto"), Budget(4, 8), 5)
    ranks = np.tile(np.arange(1, target.rows.shape[1] + 1, dtype=np.int32), (len(QUERIES), 1))
    later = dict.fromkeys((Exact(2, 4), Exact(None, 4)), ranks[None])
    for source, ends in ((Coarse(), {"(*,4)"}), (Exact(1, 1), {"(2,4)", "(*,4)"})):
        best = Cheapest([0.9], 1e9)
        cascades = Cascades(target, Exact(), 5, lambda budget, count: count * 1.0, best)
        for budget in later:
            cascades.search(FirstStage(source, lambda keep: 1.0, ranks, [20], {budget: later[budget]}), [0.9])
        found = {str(each.plan.stages[-1].source) for each in best if len(each.plan.stages) == 2}
        assert found - {"(*,*)"} <= ends


def test_plans_with_a_coarse_stage_are_measured_and_kept(lists):
    asked = [Coarse((("nprobe", 12),))]
    given = ["coarse(nprobe=16)>400 (*,*)"]
    tuning = lists.tune(QUERIES, k=5, recall=0.6, objective="bytes", coarse=asked, plans=given, seed=2)
    run = next(run for run in tuning.runs if str(run.plan) == given[0])
    held = np.random.default_rng(2).permutation(len(QUERIES))[len(QUERIES) // 2 :]
    found, exact = (lists.search(QUERIES[held], 5, plan=plan) for plan in (run.plan, "(*,*)"))
    tie = TIE * float(np.abs(exact.scores).max())
    recall = recall_at_k(lists.score(QUERIES[held], found.ids), exact.scores, 5, tolerance=tie).mean()
    assert run.recall == pytest.approx(recall, abs=METRIC)
    assert run.nbytes > 2000 * 64  # all lists in float32
    lists.set_default(run.plan)
    assert lists.search(QUERIES[0], 5).plan.startswith("coarse(nprobe=16)>400")
    lists.set_default(None)
    with pytest.raises(PlanError, match="no parameter 'efSearch'"):
        lists.set_default("coarse(efSearch=3)>400 (*,*)")


def test_the_cheapest_first_stage_wins_where_it_is_a_coarse_one():
    """Vectors in clear groups: a few lists hold all that counts, at a fraction of what any scan reads."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((64, 32), dtype=np.float32) * 3
    documents = centres[np.arange(6400) % 64][:, None] + 0.1 * rng.standard_normal((6400, 2, 32), dtype=np.float32)
    queries = centres[rng.integers(0, 64, 60)][:, None] + 0.1 * rng.standard_normal((60, 2, 32), dtype=np.float32)
    index = MetaIndex(codec="float32", coarse="IVF64,Flat", num_threads=1)
    index.add(documents)
    tuning = index.tune(queries, k=5, recall=0.9, objective="bytes")
    assert tuning.reached
    assert tuning.plan.coarse is not None
    assert tuning.chosen.nbytes < 6400 * 32 * 4 / 4  # of the smallest scan
    assert index.tune(queries, k=5, recall=0.9, objective="bytes", coarse=[]).plan.coarse is None
    index.set_default(tuning)
    assert index.default_plan == tuning.plan


def test_what_a_coarse_step_proposes_alone_is_what_a_plan_begins_with(lists):
    search = lists._searches.prepare(QUERIES, "auto")
    _, (step, *_) = lists._searches.steps(search, None, None, Plan.parse("coarse(nprobe=4)>50 (*,*)"), 5)
    rows = executor.alone(search, step).rows
    assert rows.shape == (len(QUERIES), 50)
    best = np.asarray(lists.search(QUERIES, 5, plan="coarse(nprobe=4)>50 (*,*)").ids)
    assert all(set(found) <= set(proposed) for found, proposed in zip(best.tolist(), rows.tolist()))
