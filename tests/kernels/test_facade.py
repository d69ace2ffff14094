"""The facade on a scorer of the device kind, with plain operations: stages that stay on the device, capture, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaindex import MetaIndex
from metaindex.errors import BackendError, CapacityError, ShapeError
from metaindex.execution import executor
from metaindex.scoring.device import DeviceScorer
from tests.kernels.plain import PlainOperations
from tests.tolerances import score_tolerance


@pytest.fixture
def rng():
    return np.random.default_rng(12)


def made(rng, operations=None, **arguments):
    """An index of ragged documents, some of them removed, that has the scorer "plain" besides its own."""
    index = MetaIndex(4, 8, **arguments)
    index.add([rng.standard_normal((t, 4), dtype=np.float32) for t in rng.integers(1, 9, 60)])
    index.remove(range(0, 60, 7))
    index._scorers.register(DeviceScorer(operations or PlainOperations(), index._residency))
    return index


def assert_replays(rng, index, **rest):
    """A captured search answers new queries as a search does. It, and the last queries."""
    captured = index.capture(2, 5, k=6, scorer="plain", **rest)
    for _ in range(3):
        queries = rng.standard_normal((2, 5, 4), dtype=np.float32)
        scores, rows = captured(torch.from_numpy(queries))
        expected = index.search(queries, k=6, scorer="plain", **rest)
        assert (captured.ids(rows) == expected.ids).all()
        assert (scores.numpy() == expected.scores).all()
    return captured, queries


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_a_cascade_is_that_of_the_cpu(rng, codec):
    queries = rng.standard_normal((3, 5, 4), dtype=np.float32)
    for index in (made(rng, codec=codec), made(rng, codec=codec, device_memory_limit=1500)):
        for rest in ({}, {"budget": 2}, {"plan": "(1,1)>30 (3,4)>12 (5,8)"}, {"candidates": 20, "filter": list(range(30))}):
            ours = index.search(queries, k=7, scorer="plain", **rest)
            expected = index.search(queries, k=7, scorer="cpu", **rest)
            assert (ours.ids == expected.ids).all()
            np.testing.assert_allclose(ours.scores, expected.scores, **score_tolerance(expected.scores[:, :3]))
            assert [stage.rows for stage in ours.stats] == [stage.rows for stage in expected.stats]
            assert {stage.scorer for stage in ours.stats} == {"plain"}
        scores = index.score(queries, [3, 4], scorer="cpu")
        np.testing.assert_allclose(index.score(queries, [3, 4], scorer="plain"), scores, **score_tolerance(scores))
    assert sum(level["pinned"] for level in index.memory()["levels"]) > 0


EARLY = {"plan": "(1,1):int8>30 (3,4):int8>12 (3,4)>9 (5,8)"}


def test_early_stages_read_the_copy(rng):
    queries = rng.standard_normal((3, 5, 4), dtype=np.float32)
    for index in (made(rng, early="int8"), made(rng, early="int8", device_memory_limit=1500)):
        ours, expected = (index.search(queries, k=7, scorer=scorer, **EARLY) for scorer in ("plain", "cpu"))
        assert (ours.ids == expected.ids).all()
        assert [(stage.stage, stage.rows) for stage in ours.stats] == [(stage.stage, stage.rows) for stage in expected.stats]
        assert {stage.scorer for stage in ours.stats} == {"plain"}
    assert_replays(rng, index, **EARLY)


def test_stages_of_several_codecs_run_elsewhere(rng):
    index = made(rng, codec={2: "int8", None: "float16"})
    query = rng.standard_normal((5, 4), dtype=np.float32)
    assert index.search(query, budget=2, scorer="plain").stats[0].scorer == "plain"
    with pytest.raises(
        BackendError, match="one codec in a stage, and this one reads int8 from token 0 on, float16 from token 2"
    ):
        index.search(query, scorer="plain")
    with pytest.raises(BackendError, match="one codec"):
        index.capture(1, 5, plan="(1,1)>30 (5,8)", scorer="plain")


def test_under_a_memory_limit(rng, tmp_path):
    made(rng, codec="float16", path=tmp_path / "index").close()
    index = MetaIndex.open(tmp_path / "index", memory_limit=700)
    index._scorers.register(DeviceScorer(PlainOperations(), index._residency))
    query = rng.standard_normal((5, 4), dtype=np.float32)
    assert (index.search(query, scorer="plain").ids == index.search(query, scorer="cpu").ids).all()
    with pytest.raises(BackendError, match="memory_limit"):
        index.capture(1, 5, scorer="plain")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16", "int8"])
def test_a_captured_search_is_a_search(rng, codec, normalize):
    index = made(rng, codec=codec, normalize=normalize)
    for rest in ({}, {"budget": (2, 3)}, {"plan": "(1,1)>30 (3,4)>12 (5,8)"}):
        captured, queries = assert_replays(rng, index, **rest)
    with pytest.raises(ShapeError, match=r"expected \(2, 5, 4\), as captured"):
        captured(torch.zeros(1, 5, 4))
    before = captured(torch.from_numpy(queries))[1].clone()
    index.remove(captured.ids(before)[0, :1])
    assert (captured(torch.from_numpy(queries))[1] == before).all()


def test_more_hits_than_documents_in_a_captured_search(rng):
    captured = made(rng).capture(1, 2, k=80, scorer="plain")
    scores, rows = captured(torch.randn(1, 2, 4))
    assert (rows[0, 51:] == -1).all()
    assert torch.isneginf(scores[0, 51:]).all()
    assert captured.ids(rows)[0, -1] == -1


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_a_captured_batch_is_cut_as_a_search_is(rng, monkeypatch, codec):
    """Since blocks of documents get short where a large batch keeps many."""
    operations = _Small(most=2)
    index = made(rng, operations, codec=codec)
    monkeypatch.setattr(executor, "_KEPT_BYTES", 2 * 30 * 24 * 2)
    queries = rng.standard_normal((5, 5, 4), dtype=np.float32)
    for rest in ({"k": 30}, {"k": 6, "plan": "(1,1)>30 (3,4)>12 (5,8)"}):
        captured = index.capture(5, 5, scorer="plain", **rest)
        scores, rows = captured(torch.from_numpy(queries))
        expected = index.search(queries, scorer="plain", **rest)
        assert (captured.ids(rows) == expected.ids).all()
        assert (scores.numpy() == expected.scores).all()
    assert max(operations.batches) <= 2


def test_exhausted_memory_is_told_by_a_capture(rng):
    queries = torch.from_numpy(rng.standard_normal((3, 5, 4), dtype=np.float32))
    index = made(rng, _Small(most=3, failures=1))  # levels are placed anew
    captured = index.capture(3, 5, k=6, scorer="plain")
    assert (captured.ids(captured(queries)[1]) == index.search(queries, k=6, scorer="cpu").ids.numpy()).all()
    index = made(rng, _Small(most=3, failures=2))
    with pytest.raises(CapacityError, match="device memory"):
        index.capture(3, 5, scorer="plain")
    index.capture(3, 5, scorer="plain")


def test_only_a_gpu_scorer_is_captured(rng):
    with pytest.raises(BackendError, match="the scorer is 'cpu'"):
        made(rng).capture(1, 5)


class _Small(PlainOperations):
    """Out of memory where more than ``most`` queries come at once, or at all for the first ``failures`` calls."""

    def __init__(self, most: int, failures: int = 0) -> None:
        self.most, self.failures, self.batches = most, failures, []

    def maxsim_scan(self, table, queries, *rest):
        self.batches.append(len(queries))
        self.failures -= 1
        if len(queries) > self.most or self.failures >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much")
        super().maxsim_scan(table, queries, *rest)


def test_a_batch_that_does_not_fit_is_split(rng):
    operations = _Small(most=2)
    index = made(rng, operations)
    queries = rng.standard_normal((5, 3, 4), dtype=np.float32)
    assert (index.search(queries, scorer="plain").ids == index.search(queries, scorer="cpu").ids).all()
    assert operations.batches == [5, 2, 3, 1, 2]


def test_levels_are_placed_anew_when_one_query_does_not_fit(rng):
    index = made(rng, _Small(most=1, failures=1))
    query = rng.standard_normal((3, 4), dtype=np.float32)
    assert (index.search(query, scorer="plain").ids == index.search(query, scorer="cpu").ids).all()


def test_exhausted_memory_is_told_and_the_next_call_works(rng):
    index = made(rng, _Small(most=1, failures=2))
    query = rng.standard_normal((3, 4), dtype=np.float32)
    with pytest.raises(CapacityError, match="device memory"):
        index.search(query, scorer="plain")
    assert (index.search(query, scorer="plain").ids == index.search(query, scorer="cpu").ids).all()


def test_memory_tells_what_was_placed(rng):
    with made(rng, codec="float16", placement=2) as index:
        index.search(rng.standard_normal((3, 4), dtype=np.float32), budget=4, scorer="plain")
        levels = index.memory()["levels"]
        assert [level["device"] > 0 for level in levels] == [True, True, False, False]
        assert [level["pinned"] > 0 for level in levels] == [False, False, True, False]
        assert levels[0]["device"] == levels[0]["ram"]


def test_arguments_are_checked():
    for wrong, error, text in (
        ({"device": "tpu"}, ValueError, "device: expected"),
        ({"placement": "ram"}, ValueError, "placement: expected"),
        ({"device_memory_limit": 0}, ValueError, "device_memory_limit"),
    ):
        with pytest.raises(error, match=text):
            MetaIndex(**wrong)
