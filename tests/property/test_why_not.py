"""``why_not`` against brute force: every stage of a plan ranked in plain numpy, ties by the order of addition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.coarse import kinds, upkeep
from metaindex.scoring.reference import maxsim
from tests.tolerances import COARSE_INNER_PRODUCT

DIM = 3


@st.composite
def searches(draw):
    """Documents of few small whole numbers, whose scores are exact and often equal, some of them removed; one query; a plan;
    and who is let through."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, most = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    documents = [rng.integers(-2, 3, (int(rng.integers(1, most + 1)), DIM)).astype(np.float32) for _ in range(count)]
    tokens = max(map(len, documents))
    query = rng.integers(-2, 3, (draw(st.integers(1, 4)), DIM)).astype(np.float32)
    k = draw(st.integers(1, 6))
    stages, r_q, r_c, keep = [], 1, 1, count + 2
    for _ in range(draw(st.integers(0, 3))):
        r_q, r_c = draw(st.integers(r_q, len(query))), draw(st.integers(r_c, tokens))
        keep = draw(st.integers(k, max(k, keep)))
        stages.append((r_q, r_c, keep))
    stages.append((draw(st.integers(r_q, len(query))), draw(st.integers(r_c, tokens)), k))
    removed = draw(st.sets(st.integers(0, count - 1)))
    allowed = draw(st.none() | st.sets(st.integers(0, count - 1)))
    return documents, query, stages, removed, allowed


def ranking(documents, query, r_q, r_c, among):
    """``among``, best first, and their scores."""
    scores = {one: maxsim(query[:r_q], documents[one][:r_c]) for one in among}
    return sorted(among, key=lambda one: (-scores[one], one)), scores


@pytest.mark.parametrize("scorer", ["auto", "reference"])
@settings(max_examples=60, deadline=None)
@given(case=searches())
def test_it_agrees_with_brute_force(scorer, case):
    documents, query, stages, removed, allowed = case
    index = MetaIndex(codec="float32")
    half = len(documents) // 2
    index.add(documents[:half])
    index.add(documents[half:])
    index.remove(removed)
    *climbing, (r_q, r_c, k) = stages
    plan = " ".join([*(f"({q},{c})>{keep}" for q, c, keep in climbing), f"({r_q},{r_c})"])
    asked = {"plan": plan, "k": k, "filter": None if allowed is None else list(allowed), "scorer": scorer}
    standing = [one for one in range(len(documents)) if one not in removed]
    among = standing if allowed is None else [one for one in standing if one in allowed]
    hits = index.search(query, **asked).ids[0].tolist()
    for one in range(len(documents)):
        found = index.why_not(query, one, **asked)
        assert str(found).startswith(f"document {one} ")
        if one in removed:
            assert (found.verdict, found.removed_by, found.stages) == ("removed", 3 if half else 2, ())
            continue
        if allowed is not None and one not in allowed:
            assert (found.verdict, found.stages) == ("filtered", ())
            order, scores = ranking(documents, query, r_q, r_c, standing)
            assert (found.exact.rank, found.exact.score) == (order.index(one) + 1, scores[one])
            continue
        order, scores = ranking(documents, query, r_q, r_c, among)
        assert (found.exact.rank, found.exact.score, found.exact.compared) == (order.index(one) + 1, scores[one], len(among))
        assert found.exact.last_kept == scores[order[:k][-1]]
        left, told = among, iter(found.stages)
        for at, (q, c, keep) in enumerate(stages):
            last = at == len(stages) - 1
            if not last and (keep >= len(among) or (q, c) == stages[at + 1][:2]):
                continue  # a stage that drops nothing, or ranks like the next, does not run
            order, scores = ranking(documents, query, q, c, left)
            stage = next(told)
            assert (stage.rank, stage.score, stage.compared) == (order.index(one) + 1, scores[one], len(left))
            left = order[:keep]
            assert stage.last_kept == scores[left[-1]]
            assert stage.kept == (one in left)
            if not stage.kept:
                assert found.lost_at == stage
                assert stage.margin <= 0
                break
        assert next(told, None) is None
        assert found.verdict == ("found" if one in hits else "lost")
        assert found.rank == (hits.index(one) + 1 if one in hits else None)


def test_what_compaction_forgets_is_unknown():
    index = MetaIndex()
    index.add(np.eye(4, dtype=np.float32)[:, None])
    index.remove([2])
    query = np.ones((1, 4), np.float32)
    assert index.why_not(query, 2).verdict == "removed"
    index.add(np.ones((1, 1, 4), np.float32), ids=[2])
    assert index.why_not(query, 2).verdict == "found"
    index.remove([2])
    assert index.why_not(query, 2).removed_by == 4
    index.compact()
    assert index.why_not(query, 2).verdict == "unknown"
    assert "unknown" in str(index.why_not(query, 9))


@pytest.mark.parametrize("kind", ["Flat", "IVF8,Flat", "HNSW8", "fde(repetitions=4,bits=2,dim=16),Flat"])
def test_a_coarse_stage_says_whether_it_proposed(kind, monkeypatch):
    pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setattr(upkeep, "FEW", 8)
    monkeypatch.setattr(kinds, "POINTS_PER_CENTROID", 2)
    rng = np.random.default_rng(0)
    index = MetaIndex(codec="float32", coarse=kind, num_threads=1)
    index.add(rng.standard_normal((300, 4, 8), dtype=np.float32))
    index.add(rng.standard_normal((4, 4, 8), dtype=np.float32))
    query = rng.standard_normal((2, 8), dtype=np.float32)
    plan, k = "coarse>20 (2,2)>9 (*,*)", 5
    hits = index.search(query, k, plan=plan).ids[0].tolist()
    verdicts = set()
    for one in range(len(index)):
        found = index.why_not(query, one, plan, k)
        assert found.verdict == ("found" if one in hits else "lost")
        assert found.rank == (hits.index(one) + 1 if one in hits else None)
        first = found.stages[0]
        assert (first.stage, first.compared) == ("coarse>20", len(index))
        assert first.kept == (first.rank is not None)
        assert first.kept == (found.lost_at is not first)
        if kind == "Flat":
            scores = index.score(query, range(len(index)), (2, 1))[0]
            assert first.score == pytest.approx(scores[one], abs=COARSE_INNER_PRODUCT)
            order = np.argsort(-scores, kind="stable").tolist()
            assert first.rank == (order.index(one) + 1 if one in order[:20] else None)
            assert (first.margin < 0) == (one not in order[:20])
        assert ("not proposed" in str(found)) == (first.rank is None)
        verdicts.add((found.verdict, len(found.stages)))
    assert verdicts >= {("found", 3), ("lost", 1), ("lost", 2)}
    assert index.why_not(query, index.search(query, k).ids[0, 0], k=k).verdict == "found"  # by the plan of such an index


def test_where_a_coarse_stage_can_not_serve_what_stands_in_is_told():
    pytest.importorskip("faiss", reason="faiss is not installed")
    index = MetaIndex(codec="float32", coarse="IVF8,Flat")
    index.add(np.random.default_rng(0).standard_normal((50, 4, 8), dtype=np.float32))  # too few to build of
    query = np.ones((1, 8), np.float32)
    found = index.why_not(query, 3, "coarse>20 (*,*)", 5)
    scores = index.score(query, range(50), (1, 1))[0]
    assert found.stages[0].rank == 1 + int((scores > scores[3]).sum())
    assert found.instead.startswith("in place of coarse: IVF8,Flat is built from")
    assert found.instead in str(found)
    assert not index.why_not(query, 3, "(1,1)>20 (*,*)", 5).instead


def test_what_a_scan_tops_up_is_counted_once_and_not_held_against_a_document(monkeypatch):
    pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setattr(upkeep, "FEW", 8)
    rng = np.random.default_rng(3)
    index = MetaIndex(codec="float32", coarse="IVF16,Flat", num_threads=1)
    index.add(rng.standard_normal((700, 4, 8), dtype=np.float32))
    query = rng.standard_normal((2, 8), dtype=np.float32)
    plan, k = "coarse(nprobe=1)>200 (1,2)>150 (*,*)", 100
    result = index.search(query, k, plan=plan)
    hits = result.ids[0].tolist()
    assert len(set(hits)) == k
    listed = index.search(query, 1, plan="coarse(nprobe=1)>200 (*,*)")
    own = int(listed.stats[1].rows)  # of the one list: nothing is topped up for a single hit
    assert k > own
    assert "topped up" not in listed.stats[0].why
    told, scan = result.stats[0], index.search(query, 200, budget=(2, 1)).stats[0]
    assert told.why.endswith("; 1 query topped up by a scan")
    assert (told.rows, told.bytes) == (listed.stats[0].rows + scan.rows, listed.stats[0].bytes + scan.bytes)
    scores = index.score(query, range(700), (2, 1))[0]
    scanned = set(np.argsort(-scores, kind="stable")[:200].tolist())
    candidates = int(result.stats[1].rows)
    assert 200 <= candidates < 200 + own  # some were proposed and scanned
    lost = [one for one in range(700) if index.why_not(query, one, plan, k).stages[0].rank is None]
    assert len(lost) == 700 - candidates
    last = {index.why_not(query, one, plan, k).stages[0].last_kept for one in lost[:3]}
    assert len(last) == 1
    within = [one for one in range(700) if one not in lost and one not in scanned]
    assert within, "the list holds documents that the scan does not keep"
    assert last.pop() == pytest.approx(min(scores[one] for one in within), abs=COARSE_INNER_PRODUCT)
    for rank, one in enumerate(hits, 1):
        found = index.why_not(query, one, plan, k)
        assert (found.verdict, found.rank) == ("found", rank)
        second = found.stages[1]
        assert second.compared == candidates
    batch = rng.standard_normal((5, 2, 8), dtype=np.float32)
    assert index.search(batch, k, plan=plan).stats[0].why.endswith("; 5 queries topped up by a scan")
