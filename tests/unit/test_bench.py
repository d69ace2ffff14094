"""What ``metaindex bench`` is made of: vectors, timing, the machine's record, the sweep."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.bench import machine, sweep, synthetic
from metaindex.bench.synthetic import NestedVectors
from metaindex.cli.main import main
from metaindex.timing import interleave
from tests import tolerances

SMALL = NestedVectors(documents=120, doc_tokens=8, dim=16, seed=3)
SHAPE = {"--n": 120, "--doc-tokens": 8, "--query-tokens": 4, "--dim": 16, "--queries": 6, "--rounds": 1}
SWEEP = ["bench", "sweep", *(str(part) for pair in SHAPE.items() for part in pair)]


def test_the_same_seed_gives_the_same_vectors_whole_or_in_batches() -> None:
    whole = SMALL.array()
    assert whole.shape == (120, 8, 16)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, np.concatenate(list(SMALL.batches())))
    assert not np.array_equal(whole, NestedVectors(120, 8, 16, seed=4).array())


def test_any_number_of_threads_makes_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_BATCH_VALUES", 8 * 16 * 10)
    batches = list(SMALL.batches())
    assert len(batches) == 12
    for threads in (2, 5):
        again = list(SMALL.batches(threads))
        assert len(again) == 12
        np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(again))


def test_queries_may_be_about_the_first_documents_only() -> None:
    assert SMALL.queries(30, 4, among=10)[1].max() < 120
    _, about = NestedVectors(documents=400_000, doc_tokens=8, dim=16).queries(5, 4, among=100)
    assert about.max() < 400_000 // 2


def test_documents_and_queries_are_unit_vectors() -> None:
    queries, about = SMALL.queries(7, 12)
    assert queries.shape == (7, 12, 16)
    assert about.shape == (7,)
    for vectors in (SMALL.array(), queries):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=tolerances.UNIT_LENGTH)


def test_a_longer_prefix_finds_more_of_the_exact_result() -> None:
    vectors = NestedVectors(documents=600, doc_tokens=16, dim=32, seed=0)
    subject = sweep.synthetic(vectors, 20, 16, ["float32"], 1)
    recalls = [row.answer.recall for row in sweep.sweep(subject, ["(1,1)", "(4,4)", "(16,16)"], k=10, rounds=1)]
    assert recalls[0] < recalls[1] < recalls[2] == 1.0
    assert recalls[0] > 10 / 600  # better than ten documents at random


def test_the_harder_the_vectors_the_less_a_first_token_tells() -> None:
    recalls = []
    for difficulty in (0.0, 0.5, 1.0):
        vectors = NestedVectors(documents=3000, doc_tokens=16, dim=64, difficulty=difficulty)
        subject = sweep.synthetic(vectors, 20, 8, ["float32"], 1)
        recalls.append(sweep.sweep(subject, ["(1,1)>100 (*,*)"], k=10, rounds=1)[0].answer.recall)
    assert recalls[0] > recalls[1] > recalls[2]
    assert recalls[0] > 0.95


def test_queries_are_about_documents_that_keep_to_their_topic() -> None:
    vectors = NestedVectors(documents=500, doc_tokens=16, dim=64, seed=1)
    index = MetaIndex(codec="float32", nested=True)
    index.add(vectors.batches())
    queries, about = vectors.queries(30, 8)
    assert (index.search(queries, k=1).ids[:, 0] == about).mean() > 0.9


def test_contestants_take_turns_in_rotated_order() -> None:
    calls: list[str] = []
    turns: list[str] = []
    contestants = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = interleave(contestants, rounds=2, turn_seconds=0, pause=0, before_turn=turns.append)
    assert turns == list("abcbca")
    assert calls == list("aabbccbbccaa")  # each turn is one untimed call and one timed one
    assert {len(timing.seconds) for timing in timings.values()} == {2}
    assert all(0 <= timing.best <= timing.median for timing in timings.values())


def test_an_exception_of_a_contestant_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        interleave({"bad": lambda: 1 / 0}, rounds=1)


def test_the_record_is_json_and_names_what_a_number_needs() -> None:
    record = json.loads(json.dumps(machine.run_record(seed=5)))
    assert record["seed"] == 5
    assert record["versions"]["numpy"] == np.__version__
    assert record["machine"]["cores"] >= 1
    assert {"cpu", "flags", "memory_bytes", "os", "compiler", "python"} <= set(record["machine"])
    assert machine.versions(["no-such-package-of-this-name"]) == {"no-such-package-of-this-name": None}


def test_the_sweep_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--codecs", "int8", "--budgets", "1,1 4,8"]) == 0
    out = capsys.readouterr().out
    assert "(1,1)" in out
    assert "recall" in out


def test_coarse_stages_and_tuned_plans_stand_beside_budgets(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot = tmp_path / "plot.png"
    asked = [*SWEEP, "--n", "2000", "--codecs", "int8", "--coarse", "Flat", "--tune", "20", "--recall", "0.8"]
    assert main([*asked, "--against", "bytes", "--plot", str(plot), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {row["kind"] for row in rows}
    assert kinds == {"budgets", "plans", "coarse, then all tokens", "tuned plans"}
    assert {row["search"] for row in rows if row["kind"].startswith("coarse")} >= {"coarse>100 (*,*)"}
    assert max(row["recall"] for row in rows if row["kind"] == "tuned plans") > 0.6
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_every_json_row_has_machine_versions_seed_and_error(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    assert main([*SWEEP, "--codecs", "float32,int8", "--seed", "9", "--json", "--out", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed == path.read_text()
    rows = [json.loads(line) for line in printed.splitlines()]
    assert {row["codec"] for row in rows} == {"float32", "int8"}
    assert len(rows) == 2 * len({row["search"] for row in rows})
    for row in rows:
        assert row["run"]["seed"] == 9
        assert {"machine", "versions"} <= set(row["run"])
        assert row["median_ms"] > 0
        assert row["bytes"] > 0
        assert 0 <= row["recall"] <= 1
        assert row["score_error"] <= (tolerances.BENCH_FLOAT32 if row["codec"] == "float32" else tolerances.BENCH_INT8)
    full = [row for row in rows if row["codec"] == "float32" and row["search"] == "(4,8)"]
    assert full[0]["recall"] == 1
    assert full[0]["exact"]


def test_a_stored_index_is_swept_with_its_own_queries(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    index = MetaIndex(codec="float16")
    index.add(SMALL.array())
    index.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", SMALL.queries(5, 4)[0])
    stored = ["--index", str(tmp_path / "index"), "--query-vectors", str(tmp_path / "queries.npy")]
    assert main(["bench", "sweep", *stored, "--rounds", "1", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["codec"] for row in rows} == {"float16"}
    assert {row["ndcg"] for row in rows} == {None}
    assert rows[0]["subject"]["documents"] == 120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--index", "i", "--query-vectors", "q.npy", "--tune", "9"], "--coarse, --tune: an index has its own coarse stage"),
        (["--query-vectors", "q.npy"], "--index and --query-vectors: expected both"),
        (["--index", "somewhere"], "--index and --query-vectors: expected both"),
        (["--budgets", "", "--plans"], "--budgets, --plans: expected at least one"),
        (["--budgets", "1x1"], "argument --budgets: expected r_q,r_c"),
        (["--budgets", "1,1 4"], "argument --budgets: expected pairs r_q,r_c separated by spaces, such as 1,1 2,4, got '4'"),
        (["--budgets", "1,2,3"], "argument --budgets: expected r_q,r_c or one number, got 3 numbers"),
        (["--plans", "(4,8)>x"], "argument --plans: plan: can't read"),
        (["--codecs", "int4"], "argument --codecs: expected codecs of"),
        (["--n", "0"], "argument --n: expected an integer of at least 1, got 0"),
        (["--n", "x"], "argument --n: expected an integer of at least 1, got 'x'"),
        (["--seed", "-1"], "argument --seed: expected an integer of at least 0, got -1"),
        (["--out", "nodir/x"], "argument --out: expected a file in a folder that exists, got 'nodir/x'"),
        (["--plot", "nodir/x"], "argument --plot: expected a file in a folder that exists, got 'nodir/x'"),
        (["--out", "."], "argument --out: expected a file in a folder that exists, got '.'"),
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*SWEEP, *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_demo_checks_its_plot_before_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--plot", "nodir/x"])
    assert stopped.value.code == 2
    assert "argument --plot: expected a file in a folder that exists, got 'nodir/x'" in capsys.readouterr().err


@pytest.fixture
def stored(tmp_path):
    """The arguments that sweep a stored index, normalized, with the queries in queries.npy."""
    with MetaIndex(codec="float32", path=tmp_path / "index", normalize=True) as index:
        index.add(SMALL.array())
    return ["bench", "sweep", "--index", f"{tmp_path / 'index'}", "--query-vectors", f"{tmp_path / 'queries.npy'}"]


def test_stored_queries_are_cut_to_their_lengths(stored, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = 7 * SMALL.queries(5, 4)[0]
    lengths = [2, 4, 1, 3, 4]
    for query, length in zip(queries, lengths):
        query[length:] = 1e6  # padding that would decide every score
    np.save(tmp_path / "queries.npy", queries)
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps({"length": length}) for length in lengths))
    assert main([*stored, "--rounds", "1", "--json", "--budgets", "2,2 4,8"]) == 0
    rows = {row["search"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["(4,8)"]["recall"] == 1
    assert all(row["score_error"] <= tolerances.BENCH_FLOAT32 for row in rows.values())
    assert rows["(4,8)"]["subject"]["query_tokens"] == 4


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        (np.ones((2, 4, 16), np.int64), "expected float16, float32, float64 or torch bfloat16 numbers, got int64"),
        (np.ones(16, np.float32), "queries.npy: expected [B, R, d] or one query [R, d], got (16,)"),
        (np.ones((0, 4, 16), np.float32), "queries.npy: expected at least one query, got none"),
    ],
    ids=["integers", "rank 1", "none"],
)
def test_stored_queries_that_are_none_are_one_line(queries, said, stored, tmp_path, capsys) -> None:
    np.save(tmp_path / "queries.npy", queries)
    assert main(stored) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_plan_that_nobody_asked_for_fits_k(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--codecs", "int8", "--budgets", "1,1", "-k", "1001"]) == 0
    assert ">1001" in capsys.readouterr().out
