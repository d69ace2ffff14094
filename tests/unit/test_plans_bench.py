"""The benchmark of plans: what it measures, what it keeps and what it does not do twice."""

from __future__ import annotations

import json

import pytest

from benchmarks import plans
from benchmarks.measures import Measures, render
from benchmarks.plans import Size

pytest.importorskip("faiss", reason="faiss is not installed")


@pytest.fixture
def small(monkeypatch):
    size = Size(1500, "IVF16,Flat", 16, 3.0, {"main": 10.0, "easy": 10.0, "hard": 10.0}, tuned=60, evaluated=10)
    monkeypatch.setattr(plans, "SIZES", {"100k": size})


def run(tmp_path, *more):
    out = tmp_path / "rows.jsonl"
    asked = ["--cases", "100k", "--rounds", "1", "--uncalibrated", "--out", str(out), *more]
    assert plans.main(asked, lambda record: out, tmp_path) == 0
    return [json.loads(line) for line in out.read_text().splitlines()], out


def test_parts_are_kept_and_not_run_again(small, tmp_path, capsys, monkeypatch):
    rows, out = run(tmp_path, "--parts", "main")
    assert {row["part"] for row in rows} == {"main"}
    whats = [row["what"] for row in rows]
    assert any("(1,1) alone" in what for what in whats)
    tuned = next(row for row in rows if row["what"].startswith("main: tuned") and "recall" in row["what"])
    assert tuned["target"] == ">= 0.99"
    assert tuned["frontier"]
    assert all(row["run"]["machine"] for row in rows)
    assert "| 100k |" in out.with_suffix(".md").read_text()
    both, _ = run(tmp_path, "--parts", "main", "easy")
    assert both[: len(rows)] == rows
    assert {row["part"] for row in both} == {"main", "easy"}
    monkeypatch.setitem(plans.CASES, "100k", (lambda *_: pytest.fail("it ran again"), ("main", "easy")))
    assert run(tmp_path)[0] == both


def test_targets():
    measures = Measures()
    for value, bounds in [(5, {"most": 4}), (5, {"most": 5}), (5, {"least": 6}), (5, {"least": 1, "most": 6}), (0.5, {})]:
        measures.row("case", "what", "ms", [value, value, 100], **bounds)
    assert [row["met"] for row in measures.rows] == [False, True, False, True, None]
    assert measures.rows[3]["target"] == "1 to 6"
    run = {"machine": {"cpu": "a", "cores": 2, "os": "b", "python": "c"}, "date": "2026-01-01T00", "commit": "d", "seed": 0}
    text = render("Plans", [row | {"run": run, "quick": False} for row in measures.rows], "")
    assert "| case | what | 5 | ms | <= 4 | **no** | 3 |" in text


def test_stages_that_were_predicted_are_counted():
    found = []
    stages = [{"predicted": predicted, "measured": 1.0} for predicted in (1.0, 1.4, 0.7, 1.6, None)]
    plans.within(lambda what, unit, runs, **more: found.append((unit, runs, more["least"])), stages)
    assert found == [("of 4", [0.75], 0.9)]
    plans.within(lambda *_, **__: pytest.fail("nothing was predicted"), [{"predicted": None, "measured": 1.0}])
