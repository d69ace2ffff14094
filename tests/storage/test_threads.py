"""Many threads on one handle: beside a writer and a compactor, across a close, across a fork."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.codecs import CODECS, Parts
from metaindex.errors import ClosedError, ForkedProcessError, MetaIndexError
from metaindex.storage.segment import Level
from tests.storage.threads import SEARCHERS, Run

SECONDS = 60
FORKS = 25
GOOD = np.arange(1, 25, dtype=np.float32).reshape(8, 1, 3)
BAD = -GOOD[:2]
QUERY = np.ones((1, 3), np.float32)
BEST = [7, 6, 5]


def test_every_answer_is_that_of_a_state_between_call_and_return():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        run = Run(Path(folder), seed=0)
        run(SECONDS)
    print(dict(run.counts))
    assert run.wrong == []
    # Floors that a machine with other work to do reaches too: an idle one does more than ten times as much.
    assert run.counts["searches"] >= 2_000
    assert run.counts["writes"] >= 70
    assert run.counts["compactions"] >= 5
    assert run.counts["looks of the reading process"] >= 100


@pytest.fixture(params=[False, True], ids=["memory", "disk"])
def index(request, tmp_path):
    index = MetaIndex(path=tmp_path / "index" if request.param else None, num_threads=2)
    index.add(GOOD)
    yield index
    index.close()


def test_a_close_amid_searches_is_told_to_each(index):
    """Every search ends with its answer or with ClosedError, and after the close none is answered."""
    searching, wrong = threading.Barrier(SEARCHERS + 1), []

    def search():
        searching.wait()
        try:
            while True:
                found = index.search(QUERY, 3).ids[0].tolist()
                if found != BEST:
                    wrong.append(found)
        except ClosedError:
            pass
        except BaseException as error:
            wrong.append(error)
        for call in (lambda: len(index), lambda: index.get([1]), lambda: index.add(BAD), index.refresh, index.compact):
            try:
                call()
                wrong.append("a closed index answered")
            except ClosedError:
                pass
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(SEARCHERS)]
    for thread in threads:
        thread.start()
    searching.wait()
    for _ in range(20):
        index.upsert(BAD, [100, 101])
    index.close()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking with threads, which is the point here
def test_a_fork_amid_writes_and_searches(index):
    """The threads of a child search what they have and are told that they can't write; the parent goes on."""
    stop, wrong = threading.Event(), []

    def search():
        while not stop.is_set():
            found = index.search(QUERY, 3).ids[0].tolist()
            if found != BEST:
                wrong.append(found)

    def write():
        while not stop.is_set():
            index.upsert(BAD, [100, 101])
            index.remove([100])

    def guarded(work):
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (write, *[search] * 6)]
    for thread in threads:
        thread.start()
    try:
        statuses = [_forked(index) for _ in range(FORKS)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * FORKS
    assert wrong == []
    assert index.search(QUERY, 3).ids[0].tolist() == BEST


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_a_level_is_loaded_leaves_no_lock():
    """One thread loads a level while the process forks; the child loads another."""
    loading, forked = threading.Event(), threading.Event()

    def slow():
        loading.set()
        assert forked.wait(60)
        return Parts(GOOD, None)

    first, second = (Level(0, 1, 8, 0, CODECS["float32"], load) for load in (slow, lambda: Parts(BAD, None)))
    thread = threading.Thread(target=lambda: first.parts)
    thread.start()
    assert loading.wait(60)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        os._exit(0 if second.parts.codes is BAD else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    forked.set()
    thread.join()
    assert status == 0


def _forked(index):
    """How a forked child ended whose threads search and try to write: 0 when each did what it should."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a child that waits for a lock of its parent ends by this
        failed = []

        def use():
            for _ in range(5):
                try:
                    if index.search(QUERY, 3).ids[0].tolist() != BEST:
                        failed.append("another answer")
                except ForkedProcessError:  # the parent merged away what this one had not yet mapped
                    if index._store.path is None:
                        failed.append("searching in memory ended")
                for write in (lambda: index.add(BAD), lambda: index.remove([1]), index.compact):
                    try:
                        write()
                        failed.append("a child wrote")
                    except ForkedProcessError:
                        pass

        def guarded():
            try:
                use()
            except MetaIndexError as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(len(failed))
    finally:
        os._exit(99)
