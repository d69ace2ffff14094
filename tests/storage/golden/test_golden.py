"""Indexes that earlier versions wrote open as they did, for ever."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from metaindex import MetaIndex
from tests.storage import reader
from tests.storage.golden.make import GOLDEN, HERE
from tests.tolerances import score_tolerance


@pytest.fixture(params=sorted(GOLDEN))
def golden(request, tmp_path):
    shutil.copytree(HERE / request.param / "index", tmp_path / "index")
    return tmp_path / "index", json.loads((HERE / request.param / "expected.json").read_text())


def test_all_are_there():
    assert {path.name for path in HERE.iterdir() if path.is_dir() and not path.name.startswith("__")} == set(GOLDEN)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_documents(golden, mode):
    path, expected = golden
    with MetaIndex.open(path, mode, verify=True) as index:
        assert index.verify().ok
        assert list(index) == [one["id"] for one in expected["documents"]]
        for found, one in zip(index.get(list(index)), expected["documents"]):
            assert found.id == one["id"]
            assert found.metadata == one["metadata"]
            np.testing.assert_array_equal(found.tokens, np.array(one["tokens"], np.float32))


def test_searches(golden):
    path, expected = golden
    with MetaIndex.open(path) as index:
        for search in expected["searches"]:
            budget = None if search["budget"] is None else tuple(search["budget"])
            scores, ids = index.search(np.array([search["query"]], np.float32), 3, budget=budget)
            assert ids.tolist() == search["ids"]
            wanted = np.array(search["scores"], np.float32)
            np.testing.assert_allclose(scores, wanted, **score_tolerance(wanted[np.isfinite(wanted)]))


def test_the_second_reader(golden):
    path, expected = golden
    found = reader.read(path)
    assert [(one.id, one.metadata) for one in found] == [(one["id"], one["metadata"]) for one in expected["documents"]]
    for one, wanted in zip(found, expected["documents"]):
        np.testing.assert_array_equal(one.tokens, np.array(wanted["tokens"], np.float32))
