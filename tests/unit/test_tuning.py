"""``MetaIndex.tune``: what it finds, what it promises of it, what it refuses."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from metaindex import MetaIndex, Plan
from metaindex.bench.synthetic import NestedVectors
from metaindex.errors import PlanError, ShapeError
from metaindex.evaluation import ndcg_at_k, recall_at_k
from metaindex.evaluation.metrics import TIE
from metaindex.execution import executor
from metaindex.tuning.intervals import bootstrap, wilson
from tests.tolerances import METRIC

VECTORS = NestedVectors(documents=1500, doc_tokens=16, dim=16, seed=1)
QUERIES, ABOUT = VECTORS.queries(80, 8)


@pytest.fixture(scope="module")
def index():
    made = MetaIndex(codec="int8", nested=True)
    made.add(VECTORS.batches())
    return made


def held_out(seed: int, count: int = len(QUERIES)) -> np.ndarray:
    """Which queries a tuning with that seed holds out."""
    return np.random.default_rng(seed).permutation(count)[count // 2 :]


def test_it_finds_a_cheap_plan_and_its_recall_is_the_one_reported(index):
    tuning = index.tune(QUERIES, k=5, recall=0.8, objective="bytes", seed=3)
    assert tuning.reached
    assert tuning.queries == (40, 40)
    assert not tuning.stopped
    assert tuning.chosen.nbytes < tuning.exact.nbytes / 2
    assert len(tuning.chosen.plan.stages) >= 2
    asked = QUERIES[held_out(3)]
    best = index.search(asked, 5).scores
    for run in tuning.runs:
        found = index.search(asked, 5, plan=run.plan)
        tie = TIE * float(np.abs(best).max())
        recall = recall_at_k(index.score(asked, found.ids), best, 5, tolerance=tie)
        assert run.recall == run.quality == pytest.approx(recall.mean(), abs=METRIC)
        assert run.low <= run.quality <= run.high
        assert run.exact == (str(run.plan) == "(*,*)")
        single = [sum(stage.bytes for stage in index.search(query, 5, plan=run.plan).stats) for query in asked[:2]]
        assert run.nbytes == pytest.approx(np.mean(single))
    assert tuning.chosen.quality >= 0.8
    cheaper = [run for run in tuning.runs if run.nbytes < tuning.chosen.nbytes]
    assert all(run.quality < 0.8 for run in cheaper)
    text = str(tuning)
    assert f"* {tuning.plan}" in text
    assert "exact" in text


def test_the_frontier_is_what_nothing_cheaper_matches(index):
    tuning = index.tune(QUERIES, k=5, recall=0.9, objective="bytes")
    frontier = tuning.frontier
    assert [run.nbytes for run in frontier] == sorted(run.nbytes for run in frontier)
    for run in tuning.runs:
        matched = any(other.nbytes <= run.nbytes and other.quality >= run.quality for other in tuning.runs if other != run)
        assert matched != (run in frontier)
    rows = tuning.rows()
    assert sum(row["chosen"] for row in rows) == 1
    assert [row["plan"] for row in rows] == [str(run.plan) for run in tuning.runs]


def test_the_same_seed_finds_the_same(index):
    one, two, other = (index.tune(QUERIES, k=5, recall=0.8, objective="bytes", seed=seed) for seed in (5, 5, 6))
    assert [run.plan for run in one.runs] == [run.plan for run in two.runs]
    assert [run.quality for run in one.runs] == [run.quality for run in two.runs]
    assert [run.quality for run in one.runs] != [run.quality for run in other.runs]


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_time_is_measured(index, objective):
    told: list[float] = []
    tuning = index.tune(
        QUERIES, k=5, recall=0.8, objective=objective, batch=7, seconds=20, progress=lambda share, what: told.append(share)
    )
    assert tuning.batch == (7 if objective == "throughput" else 1)
    assert all(run.ms > 0 for run in tuning.runs)
    assert tuning.chosen.ms == min(run.ms for run in tuning.runs if run.quality >= 0.8)
    assert told == sorted(told)
    assert told[-1] == 1
    assert objective in str(tuning)


def test_judgements_make_it_ndcg(index):
    qrels = [{int(about): 1.0} for about in ABOUT]
    tuning = index.tune(QUERIES, k=5, recall=0.9, objective="bytes", qrels=qrels, seed=2)
    asked = held_out(2)
    for run in tuning.runs:
        found = index.search(QUERIES[asked], 5, plan=run.plan)
        values = ndcg_at_k(found.ids, [qrels[at] for at in asked], 5)
        assert run.quality == pytest.approx(values.mean(), abs=METRIC)
        assert run.low <= run.quality <= run.high
    assert tuning.metric == "nDCG"
    assert tuning.target == pytest.approx(0.9 * tuning.exact.quality)
    assert tuning.chosen.quality >= tuning.target
    few = [{int(about): 1.0} if at < 19 else {} for at, about in enumerate(ABOUT)]
    with pytest.raises(ValueError, match="at least 20 with a relevant document to tune with, got 19"):
        index.tune(QUERIES, qrels=few)


def test_text_ids_want_judgements_by_text_ids():
    made = MetaIndex(codec="int8")
    made.add(VECTORS.array()[:300], ids=[f"d{at}" for at in range(300)])
    with pytest.raises(TypeError, match="this index has text ids, got int ids such as 5"):
        made.tune(QUERIES, qrels=[{5: 1.0}] * 80)


def test_a_first_call_that_takes_long_is_not_counted(index, monkeypatch):
    """It imports and reads files: by its time, fewer queries than there are would be used."""
    called, alone = [], executor.alone

    def slow_once(*arguments, **more):
        if not called:
            time.sleep(1.0)
        called.append(arguments)
        return alone(*arguments, **more)

    monkeypatch.setattr(executor, "alone", slow_once)
    tuning = index.tune(QUERIES, k=5, recall=0.8, objective="bytes", seconds=np.int64(8))
    assert tuning.queries == (40, 40)


def test_fewer_queries_than_there_are_is_stopped_too(index, monkeypatch):
    monkeypatch.setattr(sys.modules["metaindex.tuning.tune"], "_EXACT", 1e-9)
    tuning = index.tune(QUERIES, k=5, recall=np.float32(0.75), objective="bytes")
    assert tuning.queries == (10, 10)
    assert tuning.stopped
    assert not index.tune(QUERIES[:20], k=5, recall=0.75, objective="bytes").stopped


def test_its_plan_becomes_the_default():
    made = MetaIndex(codec="int8")
    made.add(VECTORS.batches())
    tuning = made.tune(QUERIES, k=5, recall=0.7, objective="bytes")
    made.set_default(tuning)
    assert made.default_plan == tuning.plan
    assert made.search(QUERIES[0], 5, plan=tuning).plan == made.search(QUERIES[0], 5).plan
    assert made.search(QUERIES[0], 5).plan == made.search(QUERIES[0], 5, plan=tuning.plan).plan
    again = made.tune(QUERIES, k=5, recall=0.7, objective="bytes")  # against everything, not against the default plan
    assert [run.quality for run in again.runs] == [run.quality for run in tuning.runs]
    made.default_plan = None
    assert made.default_plan is None


def test_plans_that_are_given_are_measured_too(index):
    given = ["(1,1)>50 (2,4)>20 (*,*)", Plan.parse("(1,2)")]
    tuning = index.tune(QUERIES, k=5, recall=0.8, objective="bytes", plans=given)
    assert {str(run.plan) for run in tuning.runs} >= {str(plan) for plan in given}
    with pytest.raises(PlanError, match="fewer than k"):
        index.tune(QUERIES, k=60, plans=given)


def test_a_smaller_budget_may_be_the_truth(index):
    tuning = index.tune(QUERIES, k=5, recall=0.8, objective="bytes", budget=(8, 4), seed=1)
    assert str(tuning.exact.plan) == "(*,4)"
    asked = QUERIES[held_out(1)]
    found = index.search(asked, 5, plan=tuning.plan)
    best = index.search(asked, 5, budget=(8, 4)).scores
    recall = recall_at_k(index.score(asked, found.ids, (8, 4)), best, 5, tolerance=TIE * float(np.abs(best).max()))
    assert tuning.chosen.recall == pytest.approx(recall.mean(), abs=METRIC)


def test_filters_hold(index):
    allowed = range(0, 1500, 2)
    tuning = index.tune(QUERIES, k=5, recall=0.8, objective="bytes", filter=allowed, seed=4)
    asked = QUERIES[held_out(4)]
    found = index.search(asked, 5, plan=tuning.plan, filter=allowed)
    best = index.search(asked, 5, filter=allowed).scores
    recall = recall_at_k(index.score(asked, found.ids), best, 5, tolerance=TIE * float(np.abs(best).max()))
    assert tuning.chosen.recall == pytest.approx(recall.mean(), abs=METRIC)


def test_vectors_on_disk_under_a_limit_are_tuned_alike(tmp_path):
    made = MetaIndex(codec="int8")
    made.add(VECTORS.array()[:300, :4])
    made.save(tmp_path / "index")
    in_memory = made.tune(QUERIES[:30], k=5, recall=0.5, objective="bytes")
    with MetaIndex.open(tmp_path / "index", memory_limit=12_000) as limited:  # of 24 kB
        tuning = limited.tune(QUERIES[:30], k=5, recall=0.5, objective="bytes")
    assert len(tuning.runs) > 2
    assert [run.plan for run in tuning.runs] == [run.plan for run in in_memory.runs]


def test_where_nothing_is_cheaper_the_exact_search_is_chosen():
    made = MetaIndex()
    made.add(VECTORS.array()[:200, :1])
    tuning = made.tune(QUERIES[:, :1], recall=0.9, objective="bytes")
    assert not tuning.reached
    assert tuning.plan == Plan.parse("(*,*)")
    assert "no cheaper plan than the exact search was found" in str(tuning)
    few = MetaIndex()
    few.add(VECTORS.array()[:8])
    assert not few.tune(QUERIES, k=10, objective="bytes").reached


def test_says_when_the_target_is_missed(index):
    tuning = index.tune(QUERIES, k=5, recall=1.0, objective="bytes", plans=["(1,1)"], seconds=1e-6)
    assert tuning.stopped
    assert not tuning.reached
    assert tuning.chosen.exact
    assert tuning.queries == (10, 10)
    assert "no cheaper plan reaches the target; the best other is (1,1)" in str(tuning)


def test_ragged_queries_and_documents():
    rng = np.random.default_rng(0)
    made = MetaIndex()
    made.add([each[: rng.integers(1, 17)] for each in VECTORS.array()[:400]])
    made.remove(range(0, 400, 9))
    tuning = made.tune([query[: rng.integers(1, 9)] for query in QUERIES], k=5, recall=0.6, objective="bytes")
    assert tuning.exact.recall == 1
    assert all(0 <= run.recall <= 1 for run in tuning.runs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recall": 0}, ValueError, "recall: expected a number above 0 and at most 1, got 0"),
        ({"recall": 1.1}, ValueError, "recall: expected"),
        ({"recall": True}, ValueError, "recall: expected"),
        ({"recall": "all"}, ValueError, "recall: expected"),
        ({"objective": "speed"}, ValueError, "objective: expected one of latency, throughput, bytes, got 'speed'"),
        ({"k": 0}, ValueError, "k: expected at least 1"),
        ({"batch": 0, "objective": "throughput"}, ValueError, "batch: expected at least 1"),
        ({"seed": -1}, ValueError, "seed: expected at least 0"),
        ({"seconds": 0}, ValueError, "seconds: expected a number above 0, got 0"),
        ({"plans": "(1,1)>9 (*,*)"}, TypeError, "plans: expected a list of plans"),
        ({"plans": ["(1,1"]}, PlanError, "can't read"),
        ({"coarse": ["nprobe"]}, PlanError, "can't read 'nprobe'"),
        ({"coarse": ["(1,1)"]}, PlanError, "expected a coarse stage such as coarse(nprobe=16), got '(1,1)'"),
        ({"coarse": 5}, TypeError, "coarse: expected a list of coarse stages, such as ['coarse(nprobe=4)'], got 5"),
        ({"coarse": "coarse"}, TypeError, "coarse: expected a list of coarse stages"),
        ({"coarse": ["coarse(nprobe=4)"]}, PlanError, "this index has no coarse stage"),
        ({"qrels": [{}]}, ValueError, "qrels: expected 80 dicts of gains, one for each query, got 1"),
        ({"qrels": [7] * 80}, TypeError, "qrels: expected a list with a dict"),
        ({"qrels": {"a": 1.0}}, TypeError, "qrels: expected a list with a dict"),
        ({"qrels": [{}] * 79 + [{"7": 1.0}]}, TypeError, "qrels[79]: this index has int ids, got text ids such as '7'"),
        ({"qrels": [{1.5: 1.0}] * 80}, TypeError, "qrels[0]: this index has int ids, got float ids such as 1.5"),
        ({"qrels": [{7: "1"}] * 80}, TypeError, "qrels[0]: expected a number as the gain of 7, got '1'"),
        ({"qrels": [{7: float("nan")}] * 80}, ValueError, "qrels[0]: expected a finite gain of at least 0 for 7, got nan"),
        ({"qrels": [{7: -1}] * 80}, ValueError, "qrels[0]: expected a finite gain of at least 0 for 7, got -1"),
        ({"qrels": [{10**6: 1.0}] * 80}, ValueError, "the exact search finds no relevant document of 40 held-out queries"),
        ({"budget": (8, 17)}, ValueError, "r_c in 1..16"),
        ({"filter": []}, ValueError, "there is no document to search among"),
        ({"queries": QUERIES[:19]}, ValueError, "queries: expected at least 20 to tune with, got 19"),
        ({"queries": QUERIES[:, :, :3]}, ShapeError, "queries"),
        ({"scorer": "none"}, ValueError, "scorer"),
    ],
)
def test_what_it_refuses(index, arguments, error, message):
    with pytest.raises(error) as refused:
        index.tune(**{"queries": QUERIES, **arguments})
    assert message in str(refused.value)


def test_wilson_holds_the_mean_and_never_claims_certainty():
    none_missed = wilson(np.ones(100))
    assert none_missed[1] == 1
    assert 0.95 < none_missed[0] < 0.97  # 1 - 3.84 / 103.84
    low, high = wilson(np.array([0.0, 1.0] * 50))
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(np.zeros(10))[0] == 0


def test_bootstrap_narrows_with_more_queries():
    rng = np.random.default_rng(0)
    values = rng.random(400)
    low, high = bootstrap(values, 0)
    assert low < values.mean() < high
    assert (high - low) / 4 == pytest.approx(values.std() / 20, rel=0.1)  # two standard errors on each side
    assert bootstrap(values, 0) == (low, high)
