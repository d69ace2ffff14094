"""The Pareto line, and a PNG."""

from __future__ import annotations

import sys

import pytest

from metaindex.bench.plots import Run, pareto, plot_tradeoff
from metaindex.errors import MissingDependencyError


def run(latency: float, quality: float, label: str = "") -> Run:
    return Run("series", label, latency, quality)


def test_pareto_keeps_what_nothing_beats():
    fast, good, best = run(1, 0.2), run(2, 0.5), run(9, 0.9)
    slower, worse, equal = run(3, 0.5), run(4, 0.1), run(9, 0.9, "equal")
    assert pareto([best, worse, slower, good, fast, equal]) == [fast, good, best]
    assert pareto([run(1, 0.2), run(1, 0.3)]) == [run(1, 0.3)]
    assert pareto([]) == []


def test_writes_a_png(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    target = tmp_path / "plot.png"
    runs = [Run("float32", "(1,1)", 0.2, 0.5), Run("float32", "(16,64)", 3.0, 0.9), Run("int8", "(16,64)", 1.0, 0.89)]
    plot_tradeoff(runs, target, title="title", quality="nDCG@10")
    assert target.read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with pytest.raises(ValueError, match="runs: expected at least one"):
        plot_tradeoff([], tmp_path / "plot.png", title="", quality="")


def test_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'metaindex\[plot\]'"):
        plot_tradeoff([run(1, 1)], tmp_path / "plot.png", title="", quality="")
