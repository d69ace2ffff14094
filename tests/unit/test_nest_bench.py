"""The benchmark of nested orders: its rows, their targets, and that its peers do what they are named after."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import nesting
from benchmarks.baselines import nest_peers
from metaindex import nest
from metaindex.nesting import ORDERS
from tests import tolerances

pytest.importorskip("scipy", reason="scipy is not installed")


class Rates:
    def __init__(self, threads):
        self.rates = {"1": {"fp32_generic_gops": 10.0, "read_gbs": 5.0}}

    def measure(self):
        pass


def test_rows_and_targets(monkeypatch, tmp_path):
    monkeypatch.setattr(nesting, "Roofs", Rates)
    monkeypatch.setattr(nesting, "TOKENS", 90)
    out = tmp_path / "rows.jsonl"
    asked = ["--cases", "pages", "--quick", "--rounds", "1", "--out", str(out)]
    assert nesting.main(asked, lambda record: out, tmp_path) == 0
    rows = {row["what"]: row for row in map(json.loads, out.read_text().splitlines()) if row["case"] == "pages"}
    for order in ORDERS:
        assert any(what.startswith(f"{order}, generic") for what in rows)
        assert rows[f"{order}, 2 pages in one call on all cores"]["unit"] == "pages/s"
    assert any("colpali-engine" in what for what in rows)
    assert all(row["target"] is None for row in rows.values())  # of a quick run
    assert "| pages |" in out.with_suffix(".md").read_text()


def test_numpy_is_the_order_that_it_races():
    tokens = nesting.pages(1, 0)[0, :200]
    np.testing.assert_allclose(nest_peers.facility_numpy(tokens, 20), nest(tokens, 20), atol=tolerances.NESTING_MEAN)


def test_pools_are_clusters_of_the_tree():
    topics = np.repeat(np.eye(4, 16, dtype=np.float32), 8, axis=0)
    for pooled in (nest_peers.pooled, nest_peers.pooled_by_dissimilarities):
        assert sorted(map(tuple, pooled(topics, 4))) == sorted(map(tuple, np.eye(4, 16)))
