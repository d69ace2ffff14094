"""Threads that read beside one that writes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from metaindex.storage.store import Store
from tests.storage.support import add, content, full, schema, vectors

TOKENS = vectors(64)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_every_snapshot_is_one_commit(tmp_path, on_disk):
    """Commit n holds the documents n .. 2n, so a mixture of two commits would show."""
    store = Store.create(schema(), tmp_path / "index" if on_disk else None)
    stop, wrong, seen = threading.Event(), [], set()

    def read():
        while not stop.is_set():
            snapshot = store.snapshot
            commit = snapshot.number
            expected = list(range(commit, 2 * commit)) if commit else []
            found = content(store, snapshot)
            rows = store.locate(snapshot, np.array([*expected, 10**6]))
            described = store.metadata(snapshot, rows[:-1])
            same = [np.array_equal(tokens, TOKENS[id_].astype(np.float16)) for id_, tokens in found]
            if not (
                [id_ for id_, _ in found] == expected
                and all(same)
                and snapshot.ids_at(rows[:-1]).tolist() == expected
                and rows[-1] == -1
                and described == [{"n": id_} for id_ in expected]
            ):
                wrong.append(commit)
            seen.add(commit)

    def read_safely():
        try:
            read()
        except BaseException as error:
            wrong.append(error)

    readers = [threading.Thread(target=read_safely) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for commit in range(1, 33):
            fresh = np.arange(2 * (commit - 1), 2 * commit)
            with store.transaction() as transaction:
                transaction.add(TOKENS[fresh], full(2), fresh, [f'{{"n": {id_}}}' for id_ in fresh])
                transaction.remove([commit - 1])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert len(seen) > 1
    add(store, vectors(1))


def test_a_write_inside_a_write_is_refused():
    store = Store.create(schema())
    with store.transaction() as transaction:
        with pytest.raises(RuntimeError, match="writing already"):
            add(store, vectors(1))
        transaction.add(vectors(1), full(1), [7])
    add(store, vectors(1, seed=1))
    assert [id_ for id_, _ in content(store)] == [7, 8]


def test_writers_take_turns():
    store = Store.create(schema())

    def write():
        for _ in range(20):
            add(store, vectors(1))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [id_ for id_, _ in content(store)] == list(range(80))
