"""``MetaIndex(device="cuda")``: the answers of the CPU, wherever levels lie, on whatever stream, and when memory runs out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from metaindex import MetaIndex
from metaindex.device.devices import gpus
from metaindex.errors import BackendError, CapacityError
from tests.contract.scorers import assert_ranked_like
from tests.gpu.card import DEVICE, every_backend, every_codec, scorer
from tests.tolerances import score_tolerance

pytestmark = pytest.mark.gpu
N, T, R, D = 3000, 24, 8, 40
SEARCHES: tuple[dict[str, Any], ...] = (
    {},
    {"k": 1, "budget": 1},
    {"k": 50, "budget": (3, 11)},
    {"k": 7, "plan": "(1,1)>800 (3,4)>60 (8,24)"},
    {"k": 7, "candidates": 300, "budget": (8, 24)},
    {"k": 5, "filter": list(range(0, N, 3))},
    {"k": 5, "filter": list(range(40))},  # few enough to be gathered
    {"k": N + 10, "budget": 2},
)


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(21)
    return [rng.standard_normal((t, D), dtype=np.float32) for t in rng.integers(1, T + 1, N)]


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(22).standard_normal((5, R, D), dtype=np.float32)


def made(documents, device="cuda", **arguments) -> MetaIndex:
    """An index of two segments, some of whose documents were removed."""
    index = MetaIndex(D, T, R, device=device, **arguments)
    index.add(documents[: N // 2])
    index.add(documents[N // 2 :])
    index.remove(range(0, N, 11))
    return index


@pytest.fixture
def on_cpu(documents):
    return made(documents, "cpu")


def assert_same(found, expected) -> None:
    finite = expected.scores[np.isfinite(expected.scores)]
    np.testing.assert_allclose(found.scores, expected.scores, **score_tolerance(finite))
    assert_ranked_like(found.ids, expected.ids, expected.scores)


@every_backend
@every_codec
def test_searches_are_those_of_the_cpu(documents, queries, backend, kind):
    scorer(backend)
    ours, theirs = made(documents, codec=kind), made(documents, "cpu", codec=kind)
    for rest in SEARCHES:
        found = ours.search(queries, scorer=backend, **rest)
        assert_same(found, theirs.search(queries, scorer="cpu", **rest))
        assert {stage.scorer for stage in found.stats} == {backend}
        assert all(stage.seconds > 0 for stage in found.stats)
    ids = [4, 5, 2998, 1]
    scores = theirs.score(queries, ids, scorer="cpu")
    np.testing.assert_allclose(ours.score(queries, ids, scorer=backend), scores, **score_tolerance(scores))
    assert_same(ours.rerank(queries, ids, 3, scorer=backend), theirs.rerank(queries, ids, 3, scorer="cpu"))


def test_the_gpu_is_chosen_where_there_is_one(documents, queries, on_cpu):
    index = made(documents, "auto")
    found = index.search(queries)
    (stage,) = found.stats
    assert stage.scorer in ("cuda", "triton")
    assert str(DEVICE) in stage.why
    assert_same(found, on_cpu.search(queries))
    assert index.search(queries, scorer="cpu").stats[0].scorer == "cpu"
    with pytest.raises(BackendError, match=f"the driver has {gpus()} GPUs"):
        MetaIndex(device=f"cuda:{gpus()}")


def test_tensors_in_and_out(documents, queries, on_cpu):
    index = MetaIndex(D, T, R, device=DEVICE)
    index.add([torch.from_numpy(one).to(DEVICE) for one in documents])
    index.remove(range(0, N, 11))
    scores, ids = index.search(torch.from_numpy(queries).to(DEVICE), k=9)
    assert scores.device == ids.device == DEVICE
    expected = on_cpu.search(queries, k=9)
    np.testing.assert_allclose(scores.cpu().numpy(), expected.scores, **score_tolerance(expected.scores))
    assert_ranked_like(ids.cpu().numpy(), expected.ids, expected.scores)


def test_a_stored_index_and_its_changes(documents, queries, tmp_path):
    made(documents, path=tmp_path / "index").close()
    theirs = made(documents, "cpu")
    for rest in ({}, {"memory_limit": 200_000}):
        with MetaIndex.open(tmp_path / "index", device="cuda", **rest) as ours:
            assert_same(ours.search(queries, k=9), theirs.search(queries, k=9))
    with MetaIndex.open(tmp_path / "index", "r+", device="cuda") as ours:
        for change in (
            lambda index: index.add(documents[:50]),
            lambda index: index.upsert([-one for one in documents[200:220]], ids=range(200, 220)),
            lambda index: index.remove(range(300, 900), missing="ignore"),
            lambda index: index.compact(),
        ):
            for index in (ours, theirs):
                change(index)
            assert_same(ours.search(queries, k=30), theirs.search(queries, k=30))


# where levels lie


@every_backend
@every_codec
@pytest.mark.parametrize("placement", ["auto", "device", "host", 4])
def test_placements_change_nothing(documents, queries, backend, kind, placement):
    scorer(backend)
    theirs = made(documents, "cpu", codec=kind)
    index = made(documents, codec=kind, placement=placement)
    for rest in SEARCHES[:5]:
        assert_same(index.search(queries, scorer=backend, **rest), theirs.search(queries, scorer="cpu", **rest))
    for level in index.memory()["levels"]:
        resident = placement in ("auto", "device") or (placement == 4 and level["tokens"][0] < 4)
        assert (level["device"] > 0, level["pinned"] > 0) == (resident, not resident)


@every_backend
def test_levels_that_do_not_fit_stay_in_pinned_memory(documents, queries, on_cpu, backend):
    scorer(backend)
    sizes = [level["ram"] for level in made(documents).memory()["levels"]]
    for fitting in range(len(sizes) + 1):
        index = made(documents, device_memory_limit=max(1, sum(sizes[:fitting])))
        assert_same(index.search(queries, scorer=backend), on_cpu.search(queries))
        levels = index.memory()["levels"]
        assert [level["device"] for level in levels] == [*sizes[:fitting], *[0] * (len(sizes) - fitting)]


@every_backend
@pytest.mark.parametrize("placement", ["device", 8])
def test_too_small_a_limit_is_an_error_and_the_next_call_works(documents, queries, on_cpu, backend, placement):
    scorer(backend)
    sizes = [level["ram"] for level in made(documents).memory()["levels"]]
    index = made(documents, placement=placement, device_memory_limit=sum(sizes[:3]))  # tokens below 4
    for _ in range(2):
        with pytest.raises(CapacityError, match="device_memory_limit"):
            index.search(queries, scorer=backend)
        assert_same(index.search(queries, budget=4, scorer=backend), on_cpu.search(queries, budget=4))


# when memory runs out


class Allowance:
    """While it lasts, torch may take no more than ``nbytes`` of the device beyond what it has taken."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def __enter__(self) -> None:
        torch.cuda.synchronize(DEVICE)
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(DEVICE) + self.nbytes) / total, DEVICE)

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


@every_backend
def test_exhausted_memory_is_told_and_the_next_call_works(backend):
    """With room for nothing CapacityError, with room for a part of a batch the answer, and no third thing in between."""
    scorer(backend)
    rng = np.random.default_rng(23)
    asked = rng.standard_normal((8, 1, 8), dtype=np.float32)
    index, k = MetaIndex(device="cuda"), 100_000
    # One query's keys take more than what torch's allocator may have left over of other tensors' segments.
    index.add(rng.standard_normal((2_000_000, 1, 8), dtype=np.float32))
    expected = index.search(asked, k=k, scorer=backend).scores

    def answered() -> bool:
        try:
            found = index.search(asked, k=k, scorer=backend).scores
        except CapacityError as error:
            return "device memory" not in str(error)
        np.testing.assert_allclose(found, expected, **score_tolerance(expected))
        return True

    outcomes = []
    for mebibytes in (0, 16, 32, 64, 128, 256, 1024):
        with Allowance(mebibytes << 20):
            outcomes.append(answered())
        assert answered()
    assert not outcomes[0]
    assert outcomes[-1]
    assert outcomes == sorted(outcomes)


# streams and threads


@every_backend
def test_work_follows_the_callers_stream(documents, queries, on_cpu, backend):
    """Queries that the stream has yet to write are waited for, and nothing else is."""
    scorer(backend)
    index = made(documents)
    expected = on_cpu.search(queries, k=9)
    stream = torch.cuda.Stream(DEVICE)
    source, late = torch.from_numpy(queries).to(DEVICE), torch.zeros(queries.shape, device=DEVICE)
    stream.wait_stream(torch.cuda.current_stream(DEVICE))
    for _ in range(3):
        with torch.cuda.stream(stream):
            late.zero_()
            torch.cuda._sleep(50_000_000)
            late.copy_(source)
            scores, ids = index.search(late, k=9, scorer=backend)
        stream.synchronize()
        np.testing.assert_allclose(scores.cpu().numpy(), expected.scores, **score_tolerance(expected.scores))
        assert_ranked_like(ids.cpu().numpy(), expected.ids, expected.scores)


@every_backend
def test_threads_on_streams_of_their_own(documents, queries, on_cpu, backend):
    scorer(backend)
    index = made(documents, device_memory_limit=300_000)
    expected = [on_cpu.search(queries, **rest) for rest in SEARCHES]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
                for turn in range(20):
                    which = (number + turn) % len(SEARCHES)
                    assert_same(index.search(queries, scorer=backend, **SEARCHES[which]), expected[which])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
