"""``metaindex tune`` on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.bench.synthetic import NestedVectors
from metaindex.cli import main

VECTORS = NestedVectors(documents=1000, doc_tokens=8, dim=16, seed=2)
QUERIES, ABOUT = VECTORS.queries(60, 4)


@pytest.fixture
def files(tmp_path):
    with MetaIndex(codec="int8", path=tmp_path / "index") as index:
        index.add(VECTORS.batches())
    np.save(tmp_path / "queries.npy", QUERIES)
    return tmp_path


def tune(files, *more):
    asked = ["tune", str(files / "index"), "--queries", str(files / "queries.npy"), "-k", "5", "--objective", "bytes"]
    return main([*asked, *more])


def test_table_json_plot_and_default(files, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    out, plot = files / "plans.jsonl", files / "plans.png"
    assert tune(files, "--recall", "0.7", "--save", "--json", "--out", str(out), "--plot", str(plot), "--plans", "(1,1)") == 0
    printed = capsys.readouterr().out
    assert printed == out.read_text()
    assert plot.read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in printed.splitlines()]
    (chosen,) = (row for row in rows if row["chosen"])
    assert chosen["quality"] >= 0.7
    assert {row["exact"] for row in rows} == {True, False}
    assert "(1,1)" in {row["plan"] for row in rows}
    assert all(row["run"]["machine"] and row["queries"] == [30, 30] for row in rows)
    with MetaIndex.open(files / "index") as index:
        assert str(index.default_plan) == chosen["plan"]
    assert tune(files, "--recall", "0.7") == 0
    assert f"* {chosen['plan']}" in capsys.readouterr().out


def test_nothing_is_saved_where_nothing_reaches_the_target(files, capsys):
    with MetaIndex(path=files / "flat") as index:
        index.add(VECTORS.array()[:, :1])
    asked = ["tune", str(files / "flat"), "--queries", str(files / "one.npy"), "--save", "--objective", "bytes"]
    np.save(files / "one.npy", QUERIES[:, :1])
    assert main(asked) == 1
    assert "nothing was saved" in capsys.readouterr().err
    with MetaIndex.open(files / "flat") as index:
        assert index.default_plan is None


def test_judgements(files, capsys):
    (files / "qrels.jsonl").write_text("\n".join(json.dumps({str(about): 1}) for about in ABOUT))
    assert tune(files, "--recall", "0.8", "--qrels", str(files / "qrels.jsonl")) == 0
    assert "nDCG@5" in capsys.readouterr().out
    (files / "qrels.jsonl").write_text('{"7": 1}\n{"x": 1}')
    assert tune(files, "--qrels", str(files / "qrels.jsonl")) == 1
    assert "qrels.jsonl:2: expected an object of gains by document id" in capsys.readouterr().err


def test_too_few_queries_are_one_line(files, capsys):
    np.save(files / "queries.npy", QUERIES[:5])
    assert tune(files) == 1
    assert capsys.readouterr().err == "metaindex: queries: expected at least 20 to tune with, got 5; give more\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--recall", "2"], "argument --recall: expected a number above 0 and at most 1, got '2'"),
        (["--recall", "x"], "argument --recall: expected a number above 0"),
        (["--objective", "speed"], "invalid choice"),
        (["--plans", "(1,1"], "argument --plans: plan: can't read"),
        (["--plot", "nowhere/x.png"], "argument --plot: expected a file in a folder that exists"),
    ],
)
def test_wrong_usage_is_exit_code_2(files, more, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        tune(files, *more)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
