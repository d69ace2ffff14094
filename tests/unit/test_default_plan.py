"""The plan that an index keeps for searches that name none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from metaindex import MetaIndex, Plan
from metaindex.cli import main
from metaindex.errors import PlanError, ReadOnlyError
from tests.storage import reader

RNG = np.random.default_rng(11)
DOCUMENTS = RNG.standard_normal((60, 8, 6)).astype(np.float32)
QUERY = RNG.standard_normal((4, 6)).astype(np.float32)
PLAN = "(1,1)>20 (*,*)"


def built(**arguments):
    index = MetaIndex(**arguments)
    index.add(DOCUMENTS)
    return index


def test_searches_that_name_no_plan_use_it():
    index = built()
    exact = index.search(QUERY, 5)
    assert index.default_plan is None
    index.default_plan = PLAN
    assert index.default_plan == Plan.parse(PLAN)
    found, named = index.search(QUERY, 5), index.search(QUERY, 5, plan=PLAN)
    assert (found.plan, found.exact) == ("(1,1)>20 (4,8)", False)
    np.testing.assert_array_equal(found.ids, named.ids)
    assert str(index.plan(5, query_tokens=4).plan) == PLAN
    assert index.why_not(QUERY, found.ids[0, 0], k=5).plan == found.plan
    for arguments in ({"budget": 8}, {"plan": "(*,*)"}, {"budget": (4, 8)}):
        overridden = index.search(QUERY, 5, **arguments)
        assert overridden.exact
        np.testing.assert_array_equal(overridden.ids, exact.ids)
    assert index.rerank(QUERY, range(60), 5).ids.tolist() == exact.ids.tolist()
    index.set_default(None)
    assert index.search(QUERY, 5).exact


def test_more_hits_than_it_keeps_are_ranked_exactly():
    index = built()
    index.set_default(PLAN)
    assert not index.search(QUERY, 20).exact
    assert index.search(QUERY, 21).exact


def test_what_it_keeps_is_every_document_that_a_filter_lets_through():
    index = built()
    index.set_default(PLAN)
    found = index.search(QUERY, 5, filter=range(15))
    assert found.exact
    assert set(found.ids[0].tolist()) <= set(range(15))


def test_it_is_kept_on_disk(tmp_path):
    with built(path=tmp_path / "index") as index:
        index.set_default(PLAN)
        index.add(DOCUMENTS)
        index.compact()
        index.snapshot(tmp_path / "snapshot")
        index.save(tmp_path / "saved")
    for name in ("index", "snapshot", "saved"):
        with MetaIndex.open(tmp_path / name, verify=True) as opened:
            assert str(opened.default_plan) == PLAN
            assert opened.search(QUERY, 3).plan == "(1,1)>20 (4,8)"
            with pytest.raises(ReadOnlyError):
                opened.set_default(None)
        assert len(reader.read(tmp_path / name)) == 120
    with MetaIndex.open(tmp_path / "index", "r+") as index, MetaIndex.open(tmp_path / "index") as other:
        index.set_default("(2,2)>30 (4,8)")
        assert str(other.default_plan) == PLAN
        other.refresh()
        assert str(other.default_plan) == "(2,2)>30 (4,8)"
        index.set_default(None)
        other.refresh()
        assert other.default_plan is None


def test_without_one_the_schema_is_what_it_was_before_there_were_any():
    index = built()
    index.set_default(PLAN)
    assert json.loads(index.schema.to_json())["default_plan"] == PLAN
    index.set_default(None)
    assert "default_plan" not in json.loads(index.schema.to_json())


def test_info_shows_it(tmp_path, capsys):
    with built(path=tmp_path / "index") as index:
        index.set_default(PLAN)
    assert main(["info", str(tmp_path / "index")]) == 0
    assert PLAN in capsys.readouterr().out


def test_one_that_no_search_could_run_is_refused():
    index = built(doc_tokens=8, query_tokens=4)
    for plan, reason in [
        ("(1,9)>20 (*,*)", "more than"),
        ("(5,1)>20 (*,*)", "more than"),
        ("(*,1)>20 (3,8)", "may not shrink"),
        ("coarse>20 (*,*)", "no coarse stage"),
        ("(1,1)>20", "the last keeps"),
    ]:
        with pytest.raises(PlanError, match=reason):
            index.set_default(plan)
    with pytest.raises(TypeError, match="plan"):
        index.set_default(7)
    assert index.default_plan is None


def test_an_empty_index_may_have_one():
    index = MetaIndex()
    index.set_default("(2,4)>20 (16,64)")
    assert index.search(QUERY, 5).ids.tolist() == [[-1] * 5]
    index.add(np.ones((30, 64, 6), np.float32))
    assert index.search(np.ones((16, 6)), 5).plan == "(2,4)>20 (16,64)"


def test_a_commit_that_changes_nothing_is_none(tmp_path):
    index = built(path=tmp_path / "index")
    index.set_default(PLAN)
    number = index._store.snapshot.number
    index.set_default(PLAN)
    assert index._store.snapshot.number == number


@pytest.mark.parametrize(
    ("plan", "queries"),
    [
        ("(*,1)>20 (3,8)", RNG.standard_normal((4, 6))),  # shrinks for queries of four tokens, not of three
        ("coarse(nprobe=99999999999)>20 (*,*)", QUERY),  # stored when that was not checked
        ("coarse>20 (*,*)", QUERY),
    ],
)
def test_a_stored_one_that_does_not_fit_a_search_is_passed_over(plan, queries):
    index = built()
    with index._store.transaction() as transaction:
        transaction.set_schema(replace(transaction.schema, default_plan=plan))
    assert index.search(queries, 5).exact
    index.set_default(None)
    assert index.default_plan is None


def test_it_may_name_the_query_tokens_of_the_coarse_stage():
    pytest.importorskip("faiss", reason="faiss is not installed")
    index = built(coarse="Flat")
    for tokens in (3, 99):
        index.set_default(f"coarse(r_q={tokens})>20 (*,*)")
        assert not index.search(QUERY, 5).exact
        assert index.search(QUERY, 5).plan == index.search(QUERY, 5, plan=index.default_plan).plan


def test_parameters_that_can_not_be_checked_yet_are_refused():
    pytest.importorskip("faiss", reason="faiss is not installed")
    index = MetaIndex(coarse="IVF4,Flat")
    with pytest.raises(PlanError, match="which parameters IVF4,Flat takes is known once there are documents"):
        index.set_default("coarse(nprob=1)>100 (*,*)")
    index.set_default("coarse>100 (*,*)")
    index.add(DOCUMENTS)
    index.set_default("coarse(nprobe=1)>20 (*,*)")
    with pytest.raises(PlanError, match="there is no parameter 'nprob'"):
        index.set_default("coarse(nprob=1)>100 (*,*)")
    early = MetaIndex(6, coarse="IVF4,Flat")
    early.set_default("coarse(nprobe=1)>20 (*,*)")
    assert str(early.default_plan) == "coarse(nprobe=1)>20 (*,*)"
