"""Searches captured in CUDA graphs: replayed with new queries they are what a search is, and take and wait for nothing."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from metaindex import MetaIndex
from metaindex.errors import ShapeError
from tests.contract.scorers import assert_ranked_like
from tests.gpu.card import DEVICE, every_backend, every_codec, scorer
from tests.tolerances import score_tolerance

pytestmark = pytest.mark.gpu
N, T, R, D = 2000, 16, 4, 32
SEARCHES = ({}, {"budget": (2, 5)}, {"plan": "(1,1)>300 (2,4)>40 (4,16)"})


def made(**arguments) -> MetaIndex:
    rng = np.random.default_rng(31)
    index = MetaIndex(D, T, R, device="cuda", **arguments)
    index.add([rng.standard_normal((t, D), dtype=np.float32) for t in rng.integers(1, T + 1, N)])
    index.remove(range(0, N, 7))
    return index


def assert_search(captured, scores, rows, expected) -> None:
    np.testing.assert_allclose(scores.cpu().numpy(), expected.scores, **score_tolerance(expected.scores))
    assert_ranked_like(captured.ids(rows), expected.ids, expected.scores)


@every_backend
@every_codec
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_a_replay_is_a_search(backend, kind, batch):
    scorer(backend)
    for index in (made(codec=kind), made(codec=kind, normalize=True), made(codec=kind, device_memory_limit=40_000)):
        for rest in SEARCHES:
            captured = index.capture(batch, R, k=9, scorer=backend, **rest)
            for seed in range(3):
                queries = np.random.default_rng(seed).standard_normal((batch, R, D), dtype=np.float32)
                scores, rows = captured(torch.from_numpy(queries).to(DEVICE))
                assert_search(captured, scores, rows, index.search(queries, k=9, scorer=backend, **rest))


@every_backend
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_replay_takes_no_memory_and_waits_for_nothing(backend):
    scorer(backend)
    captured = made().capture(2, R, k=9, scorer=backend, plan=SEARCHES[2]["plan"])
    queries = torch.randn(2, R, D, device=DEVICE)
    captured(queries)
    torch.cuda.synchronize(DEVICE)
    before = torch.cuda.memory_stats(DEVICE)["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            captured(queries)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats(DEVICE)["allocation.all.allocated"] == before


@every_backend
def test_replays_on_a_stream_follow_it(backend):
    scorer(backend)
    index = made()
    captured = index.capture(2, R, k=9, scorer=backend)
    queries = torch.randn(2, R, D, device=DEVICE)
    late, stream = torch.zeros_like(queries), torch.cuda.Stream(DEVICE)
    stream.wait_stream(torch.cuda.current_stream(DEVICE))
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(queries)
        scores, rows = captured(late)
    stream.synchronize()
    assert_search(captured, scores, rows, index.search(queries.cpu().numpy(), k=9, scorer=backend))


@every_backend
def test_replays_on_several_streams_follow_each_other(backend):
    """The queries of the second are not written while the first, on another stream, still reads its own."""
    scorer(backend)
    index = made()
    captured = index.capture(2, R, k=9, scorer=backend)
    queries = torch.randn(2, 2, R, D, device=DEVICE)
    streams = [torch.cuda.Stream(DEVICE) for _ in range(2)]
    torch.cuda.synchronize(DEVICE)
    for _ in range(3):
        kept = []
        for stream, each in zip(streams, queries):
            with torch.cuda.stream(stream):
                if kept:  # an answer is the reader's to wait for
                    stream.wait_event(kept[-1][1])
                else:
                    torch.cuda._sleep(50_000_000)
                scores, rows = (one.clone() for one in captured(each))
                read = torch.cuda.Event()
                read.record(stream)
                kept.append(((scores, rows), read))
        torch.cuda.synchronize(DEVICE)
        for each, (found, _) in zip(queries, kept):
            assert_search(captured, *found, index.search(each.cpu().numpy(), k=9, scorer=backend))


@every_backend
def test_a_later_replay_waits_for_the_one_before(backend):
    """Without a word from the caller: both have the same queries' place."""
    scorer(backend)
    index = made()
    captured = index.capture(2, R, k=9, scorer=backend)
    first, second = torch.randn(2, 2, R, D, device=DEVICE)
    slow, fast = (torch.cuda.Stream(DEVICE) for _ in range(2))
    torch.cuda.synchronize(DEVICE)
    with torch.cuda.stream(slow):
        torch.cuda._sleep(50_000_000)
        captured(first)
    with torch.cuda.stream(fast):
        scores, rows = captured(second)
    fast.synchronize()
    assert slow.query()
    assert_search(captured, scores, rows, index.search(second.cpu().numpy(), k=9, scorer=backend))


@every_backend
def test_captured_while_threads_search(backend):
    """And while others capture."""
    scorer(backend)
    index, other = made(), made(device_memory_limit=40_000)
    queries = np.random.default_rng(5).standard_normal((3, R, D), dtype=np.float32)
    expected = index.search(queries, k=9, scorer=backend)
    other.search(queries, scorer=backend)
    done, failures = threading.Event(), []

    def searching(number: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
                turn = 0
                while not done.is_set():
                    found = (index, other)[turn % 2].search(queries, k=9, scorer=backend)
                    assert_ranked_like(found.ids, expected.ids, expected.scores)
                    torch.empty((1 << 20) + number, device=DEVICE)  # of the allocator that captures use too
                    turn += 1
        except BaseException as error:
            failures.append(error)

    def capturing() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream(DEVICE)):
                for _ in range(5):
                    captured = index.capture(3, R, k=9, scorer=backend)
                    scores, rows = captured(torch.from_numpy(queries).to(DEVICE))
                    assert_search(captured, scores, rows, expected)
        except BaseException as error:
            failures.append(error)

    searchers = [threading.Thread(target=searching, args=(number,)) for number in range(3)]
    capturers = [threading.Thread(target=capturing) for _ in range(2)]
    for thread in (*searchers, *capturers):
        thread.start()
    for thread in capturers:
        thread.join()
    done.set()
    for thread in searchers:
        thread.join()
    assert not failures, failures[0]


@every_backend
def test_a_large_batch_that_keeps_many(backend):
    """In one piece, 2048 queries that keep 4096 documents each would make a block of every document."""
    scorer(backend)
    index = MetaIndex(8, 1, 1, device="cuda")
    index.add(np.random.default_rng(2).standard_normal((200_000, 1, 8), dtype=np.float32))
    captured = index.capture(2048, 1, k=4096, scorer=backend)
    queries = np.random.default_rng(3).standard_normal((2048, 1, 8), dtype=np.float32)
    scores, _ = captured(torch.from_numpy(queries).to(DEVICE))
    expected = index.search(queries[::500], k=4096, scorer=backend).scores
    np.testing.assert_allclose(scores[::500].cpu().numpy(), expected, **score_tolerance(expected))


@every_backend
@pytest.mark.parametrize("batch", [1, 40])  # the second by way of the copy engine where there is one, which reads boxes
def test_a_captured_search_keeps_its_documents(backend, batch):
    """Whatever becomes of them in the index, and of the index, though others take the memory of what is freed."""
    scorer(backend)
    index = made()
    captured = index.capture(batch, R, k=9, scorer=backend)
    queries = torch.randn(batch, R, D, device=DEVICE)
    scores, rows = (one.clone() for one in captured(queries))
    index.remove(captured.ids(rows)[0, :4])
    index.compact()
    index.search(queries, scorer=backend)
    del index
    gc.collect()
    taken = [torch.full((1 << size,), 255, dtype=torch.uint8, device=DEVICE) for size in range(6, 20) for _ in range(20)]
    torch.cuda.empty_cache()
    again = captured(queries)
    assert torch.equal(again[0], scores)
    assert torch.equal(again[1], rows)
    del taken


@every_backend
def test_more_hits_than_documents(backend):
    scorer(backend)
    index = made()
    captured = index.capture(1, R, k=N + 5, scorer=backend)
    scores, rows = captured(torch.randn(1, R, D, device=DEVICE))
    there = len(index)
    assert (rows[0, :there] >= 0).all()
    assert (rows[0, there:] == -1).all()
    assert torch.isneginf(scores[0, there:]).all()
    with pytest.raises(ShapeError, match="as captured"):
        captured(torch.zeros(2, R, D, device=DEVICE))
