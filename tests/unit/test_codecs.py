"""Codecs by token edge, and an early copy of all levels: arguments, sizes, costs, what is shown, damage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.cli import main
from metaindex.codecs import CODECS, as_bands, bands
from metaindex.errors import NonFiniteError, PlanError
from tests.storage.hostile.mutations import LEVEL, assign, values

RNG = np.random.default_rng(8)
VECTORS = RNG.standard_normal((40, 16, 12)).astype(np.float32)
QUERY = RNG.standard_normal((4, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("int8", "int8"),
        ({8: "int8", None: "float16"}, "8:int8,float16"),
        ({8: "int8", 64: "float16"}, "8:int8,float16"),  # the last keeps the rest
        ({2: "float32", 8: "float32", 9: "int8"}, "8:float32,int8"),
        ({None: "bfloat16"}, "bfloat16"),
        ({3: "int8"}, "int8"),
        ({1: "int8", 2: "float16", None: "int8"}, "1:int8,2:float16,int8"),
    ],
)
def test_bands_print_as_they_parse(given, text):
    found = as_bands(given)
    assert str(found) == text
    assert bands(text) == as_bands(text) == found


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        ("float8", ValueError, "expected one of float32"),
        (["int8"], ValueError, "expected one of float32"),
        (None, ValueError, "expected one of float32"),
        ({}, ValueError, "at least one codec"),
        ({8: "int8", 4: "float16"}, ValueError, "rising token edges"),
        ({None: "int8", 8: "float16"}, TypeError, "a token edge: expected an integer"),
        ({0: "int8", 8: "float16"}, ValueError, "a token edge: expected at least 1"),
        ({1.5: "int8", 8: "float16"}, TypeError, "a token edge"),
        ({8: "pickle"}, ValueError, "expected one of float32"),
        ("8:int8", ValueError, "codec"),
        ("8:int8,int8", ValueError, "no codec twice in a row"),
        ("08:int8,float16", ValueError, "edges such as '8:int8,float16'"),
    ],
)
def test_what_is_no_codec_is_refused_with_the_reason(given, error, reason):
    with pytest.raises(error, match="codec") as refused:
        MetaIndex(codec=given)
    assert reason in str(refused.value)


def test_edges_of_codecs_are_edges_of_levels():
    assert MetaIndex(codec={6: "int8", 20: "float16", None: "float32"}).schema.levels.edges == (1, 2, 4, 6, 12, 20)
    assert MetaIndex(codec={6: "int8", None: "float16"}, doc_tokens=16).schema.levels.edges == (1, 2, 4, 6, 12, 16)
    assert MetaIndex(codec={4: "int8", None: "float16"}, levels=(4, 16)).schema.levels.edges == (4, 16)
    with pytest.raises(ValueError, match=r"codec: expected token edges among the levels' 4, 16, got 8; a level has one codec"):
        MetaIndex(codec={8: "int8", None: "float16"}, levels=(4, 16))
    # What would keep no token of a document is left out.
    assert MetaIndex(codec={8: "int8", 16: "float16", None: "float32"}, doc_tokens=16).schema.codec == "8:int8,float16"
    index = MetaIndex(codec={6: "int8", None: "float16"})
    index.add(VECTORS)
    assert index.schema.levels.edges == (1, 2, 4, 6, 12, 16)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"early": "int4"}, "early: expected one of float32, float16, bfloat16, int8 or None, got 'int4'"),
        ({"early": 8}, "early: expected one of"),
        ({"early": "float32"}, "early: expected a codec of fewer bytes a number than float16"),
        ({"early": "bfloat16"}, "such as early='int8' beside codec='float16'"),
        ({"early": "int8", "codec": {8: "int8", None: "float16"}}, "than 8:int8,float16"),
    ],
)
def test_an_early_copy_is_smaller_than_what_it_is_a_copy_of(arguments, reason):
    with pytest.raises(ValueError, match="early") as refused:
        MetaIndex(**arguments)
    assert reason in str(refused.value)


def test_plans_name_a_copy_that_there_is():
    index = MetaIndex()
    index.add(VECTORS)
    for call in (index.search, index.why_not):
        with pytest.raises(PlanError, match="no early copy"):
            call(QUERY, *(() if call == index.search else (3,)), plan="(1,1):int8>20 (*,*)")
    with pytest.raises(PlanError, match="no early copy"):
        index.set_default("(1,1):int8>20 (*,*)")


def test_the_smallest_limit_of_all_codecs_holds():
    large = np.full((1, 2, 4), 1e6, np.float32)
    MetaIndex(codec="float32").add(large)
    for arguments in ({"codec": {1: "float32", None: "float16"}}, {"codec": "float32", "early": "float16"}):
        index = MetaIndex(**arguments)
        with pytest.raises(NonFiniteError, match="up to 65504 for float16"):
            index.add(large)
        index.add(large / 1e6)
        with pytest.raises(NonFiniteError, match="queries"):
            index.search(large[0])


@pytest.mark.parametrize(
    "kept", [{"codec": {4: "int8", None: "float16"}}, {"early": "int8"}, {"codec": "float32", "early": "float16"}]
)
def test_estimate_is_what_memory_says(kept):
    estimate = MetaIndex.estimate(40, 16, 12, **kept)
    index = MetaIndex(**kept)
    index.add(VECTORS)
    assert sum(level["ram"] for level in index.memory()["levels"]) == estimate.vectors
    codec, copy = bands(index.schema.codec), index.schema.copy_codec
    tokens = (sum(each.bytes_per_token(12) for each in (codec.at(at), copy) if each is not None) for at in range(16))
    assert estimate.vectors == 40 * sum(tokens)
    assert ("early copy" in str(estimate)) == ("early" in kept)


def test_stages_cost_the_bytes_of_their_codecs():
    early, mixed = MetaIndex(early="int8"), MetaIndex(codec={4: "int8", None: "float16"})
    for index in (early, mixed):
        index.add(VECTORS)
    plan = "(4,8):int8>10 (*,*)"
    found, planned = early.search(QUERY, 5, plan=plan), early.plan(5, plan=plan, query_tokens=4)
    assert [stage.bytes for stage in found.stats] == [40 * 8 * 16, 10 * 16 * 24]
    assert [stage.cost.nbytes for stage in planned.stages] == [stage.bytes for stage in found.stats]
    assert [stage.codec for stage in planned.stages] == ["int8", "float16"]
    assert "(4,8):int8>10 " in str(planned)
    found, planned = mixed.search(QUERY, 5, budget=(4, 6)), mixed.plan(5, (4, 6))
    assert found.stats[0].bytes == planned.stages[0].cost.nbytes == 40 * (4 * 16 + 2 * 24)
    assert planned.stages[0].codec == "int8+float16"
    assert mixed.plan(5, (4, 4)).stages[0].codec == "int8"
    kept = mixed.search(QUERY, 5, budget=(4, 6), filter=[1, 2, 3])
    assert kept.stats[0].bytes == 3 * (4 * 16 + 2 * 24)


def test_the_plan_of_a_result_runs_again():
    index = MetaIndex(early="int8")
    index.add(VECTORS)
    found = index.search(QUERY, 5, plan="(1,1):int8>30 (*,8):int8>10 (*,*)")
    assert found.plan == "(1,1):int8>30 (4,8):int8>10 (4,16)"
    np.testing.assert_array_equal(index.search(QUERY, 5, plan=found.plan).ids, found.ids)
    index.set_default(found.plan)
    assert index.search(QUERY, 5).plan == found.plan
    assert not index.search(QUERY, 5).exact
    assert index.search(QUERY, 5, plan="(*,*)").exact


def test_explain_compares_each_token_in_its_codec():
    index = MetaIndex(codec={4: "int8", None: "float32"})
    index.add(VECTORS)
    explained = index.explain(QUERY, 3)
    np.testing.assert_allclose(explained.score, index.score(QUERY, [3])[0, 0], rtol=1e-5)
    for row, token in enumerate(explained.tokens):
        code = CODECS["int8" if token < 4 else "float32"]
        query, document = (code.decode(code.encode(each)) for each in (QUERY[row], VECTORS[3, token]))
        np.testing.assert_allclose(explained.similarities[row], query @ document, rtol=1e-5)


def test_save_merge_and_reopen(tmp_path):
    kept = {"codec": {2: "float16", None: "float32"}, "early": "int8"}
    with MetaIndex(path=tmp_path / "index", **kept) as index:
        for vectors in VECTORS:
            index.add(vectors[None])
        index.remove(range(5))
        index.compact()
        index.snapshot(tmp_path / "snapshot")
        index.save(tmp_path / "saved")
        expected = index.search(QUERY, 9, plan="(4,8):int8>20 (*,*)")
    for name in ("index", "snapshot", "saved"):
        with MetaIndex.open(tmp_path / name, verify=True) as opened:
            assert (opened.schema.codec, opened.schema.early) == ("2:float16,float32", "int8")
            assert opened.verify().ok
            found = opened.search(QUERY, 9, plan="(4,8):int8>20 (*,*)")
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_damaged_copy_is_found_and_repaired(tmp_path):
    with MetaIndex(path=tmp_path / "index", early="int8") as index:
        index.add(VECTORS)
        index.add(VECTORS)
    values(LEVEL, "early_codes", assign((3, 0, 0), -128))(tmp_path / "index")
    with MetaIndex.open(tmp_path / "index") as index:
        found = index.verify()
    assert [str(one) for one in found.damage] == [f"{LEVEL}: its early_codes hold -128, which no encoder writes (40 documents)"]
    assert MetaIndex.repair(tmp_path / "index", apply=True).lost == list(range(40))
    with MetaIndex.open(tmp_path / "index", verify=True) as index:
        assert list(index) == list(range(40, 80))
        assert index.search(QUERY, 5, plan="(1,1):int8>20 (*,*)").ids.min() >= 40


@pytest.mark.parametrize("coarse", ["Flat", "fde(repetitions=4,bits=2),Flat"])
@pytest.mark.parametrize("kept", [{"codec": {1: "int8", None: "float16"}}, {"early": "int8"}])
def test_a_coarse_stage_before_either(kept, coarse):
    index = MetaIndex(coarse=coarse, **kept)
    vectors = np.random.default_rng(2).standard_normal((1100, 4, 12)).astype(np.float32)  # from 1,024 on FAISS has an index
    index.add(vectors)
    stage = " (4,4):int8>{}" if "early" in kept else ""
    found = index.search(QUERY, 5, plan=f"coarse>1099{stage.format(1090)} (*,*)")
    assert [each.stage.split(">")[0] for each in found.stats] == ["coarse", *["(4,4):int8"] * bool(stage), "(4,4)"]
    exact = index.search(QUERY, 5, plan="(*,*)")
    assert np.isin(found.ids, exact.ids).sum() >= 4  # what one document fewer can change
    np.testing.assert_array_equal(index.rerank(QUERY, found.ids.tolist()).scores, found.scores)


def test_tuning_takes_the_copy_for_early_stages():
    rng = np.random.default_rng(1)
    documents = rng.standard_normal((600, 1, 32)) + 0.5 * rng.standard_normal((600, 8, 32))
    queries = documents[rng.integers(0, 600, 40), :4] + 0.3 * rng.standard_normal((40, 4, 32))
    index = MetaIndex(early="int8")
    index.add(documents)
    tuning = index.tune(queries, 5, recall=0.9, objective="bytes", seconds=20)
    assert any(":int8>" in str(run.plan) for run in tuning.runs)
    index.set_default(tuning)
    assert index.default_plan == tuning.plan


def test_the_command_line(tmp_path, capsys):
    np.save(tmp_path / "vectors.npy", VECTORS)
    np.save(tmp_path / "queries.npy", QUERY)
    source, place = str(tmp_path / "vectors.npy"), str(tmp_path / "index")
    assert main(["build", place, source, "--codec", "4:float16,float32", "--early", "int8"]) == 0
    assert "4:float16,float32, early int8" in capsys.readouterr().out
    assert main(["info", place]) == 0
    assert "float16+int8" in capsys.readouterr().out
    assert main(["search", place, str(tmp_path / "queries.npy"), "--plan", "(1,1):int8>20 (*,*)"]) == 0
    assert "(1,1):int8>20" in capsys.readouterr().out
    assert main(["estimate", "10", "16", "12", "--codec", "4:int8,float16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vectors"] == 10 * (4 * 16 + 12 * 24)
    assert main(["estimate", "10", "16", "12", "--early", "int8"]) == 0
    assert "early copy, int8" in capsys.readouterr().out
    for bad in ("4:int8", "4:int4,int8", "x"):
        with pytest.raises(SystemExit) as left:
            main(["build", str(tmp_path / "other"), source, "--codec", bad])
        assert left.value.code == 2
        assert "--codec: expected" in capsys.readouterr().err
