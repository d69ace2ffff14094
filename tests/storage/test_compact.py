"""Compaction: what it writes anew, what it forgets, what snapshots and readers keep, and that a purge leaves no byte."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.errors import IndexLockedError, ReadOnlyError
from metaindex.storage import folder
from metaindex.storage.files import Files
from metaindex.storage.store import Store
from tests.storage.support import add, assert_holds, content, full, ragged, schema, vectors

SECRET = b"SECRET-OF-A-REMOVED-DOCUMENT"


def rows(index, table):
    connection = sqlite3.connect(index / "catalog.sqlite")
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    connection.close()
    return count


def every_byte(path):
    found = b""
    for inside, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(inside, name), "rb") as file:
                found += file.read() + b"\0"
    return found


def remove(store, ids):
    with store.transaction() as transaction:
        transaction.remove(ids)


def filled(path=None, documents=30, codec="float32"):
    """Documents 0.. with metadata and ragged lengths, in a few segments, every third removed; and what stands."""
    store = Store.create(schema(codec=codec), path)
    tokens, lengths = vectors(documents), ragged(documents)
    for start in range(0, documents, 10):
        part = slice(start, start + 10)
        add(store, tokens[part], lengths[part], None, [{"n": n} for n in range(start, start + 10)])
    remove(store, range(0, documents, 3))
    kept = [n for n in range(documents) if n % 3]
    return store, kept, [tokens[n, : lengths[n]] for n in kept]


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("purge", [False, True], ids=["", "purge"])
def test_compact_drops_removed_rows_and_changes_nothing_else(tmp_path, on_disk, codec, purge):
    store, kept, documents = filled(tmp_path / "index" if on_disk else None, codec=codec)
    before = store.snapshot.number
    store.compact(purge=purge)
    snapshot = store.snapshot
    assert (snapshot.rows, len(snapshot), len(snapshot.segments), snapshot.number) == (20, 20, 1, before + 1)
    assert_holds(store, kept, documents)
    assert [one["n"] for one in store.metadata(snapshot, snapshot.order)] == kept
    add(store, vectors(1))
    assert store.locate(store.snapshot, [30]).tolist() == [20]
    if on_disk:
        assert rows(tmp_path / "index", "documents") == 21
        assert rows(tmp_path / "index", "metadata") == 20
        del snapshot
        store.close()
        again = Store.open(tmp_path / "index", verify=True)
        assert_holds(again, [*kept, 30], [*documents, vectors(1)[0]])


def test_compact_with_nothing_to_do_commits_nothing(tmp_path):
    store, _, _ = filled(tmp_path / "index")
    store.compact()
    before = store.snapshot
    store.compact()
    assert store.snapshot is before
    empty = Store.create(schema())
    empty.compact(purge=True)
    assert len(empty.snapshot) == 0


def test_everything_removed_leaves_no_segment(tmp_path):
    store = Store.create(schema(), tmp_path / "index")
    add(store, vectors(4))
    remove(store, range(4))
    store.compact()
    assert store.snapshot.segments == ()
    assert os.listdir(tmp_path / "index" / "segments") == []
    assert rows(tmp_path / "index", "documents") == 0
    add(store, vectors(1, seed=4))
    store.close()
    assert_holds(Store.open(tmp_path / "index", verify=True), [4], vectors(1, seed=4))


def test_groups_are_bounded_and_settled_segments_stay(tmp_path, monkeypatch):
    one = 10 * 8 * 5 * 4  # ten documents of eight tokens, five float32 each
    monkeypatch.setattr("metaindex.storage.transaction.due", lambda segments: None)
    store = Store.create(schema(codec="float32"), tmp_path / "index")
    for seed in range(6):
        add(store, vectors(10, seed=seed))
    with store.transaction() as transaction:
        transaction.remove([0])
    monkeypatch.setattr(folder, "SAVED_SEGMENT_BYTES", 2 * one)
    store.compact()
    sizes = [segment.rows for segment in store.snapshot.segments]
    assert sizes == [19, 20, 20]
    names = [segment.name for segment in store.snapshot.segments]
    add(store, vectors(10, seed=9))
    remove(store, [25])
    store.compact()
    assert [segment.rows for segment in store.snapshot.segments] == [19, 19, 20, 10]
    assert [segment.name for segment in store.snapshot.segments][::2] == names[::2]


def test_levels_are_streamed(tmp_path, monkeypatch):
    store, kept, documents = filled(tmp_path / "index")

    def parts(self):
        raise AssertionError("a level was made in memory as a whole")

    monkeypatch.setattr("metaindex.storage.merge.Merge.parts", parts)
    monkeypatch.setattr("metaindex.storage.merge.CHUNK_BYTES", 64)
    store.compact()
    assert_holds(store, kept, documents)


def test_an_older_snapshot_of_this_process_keeps_its_history(tmp_path):
    store, kept, documents = filled(tmp_path / "index")
    old = store.snapshot
    remove(store, [1])
    commit = store.snapshot.number
    with pytest.raises(IndexLockedError, match="older snapshots"):
        store.compact(purge=True)
    assert store.snapshot.number == commit
    assert store.snapshot.rows == 30
    store.compact()
    assert_holds(store, kept, documents, old)
    assert [one["n"] for one in store.metadata(old, old.order)] == kept
    assert rows(tmp_path / "index", "documents") == 20, "what was gone before the old snapshot goes, document 1 stays"
    del old
    store.compact()
    assert rows(tmp_path / "index", "documents") == 19
    assert rows(tmp_path / "index", "metadata") == 19
    store.compact(purge=True)


def test_a_reader_keeps_its_history(tmp_path):
    store, kept, documents = filled(tmp_path / "index")
    with closing(Store.open(tmp_path / "index")) as reader:
        remove(store, [1])
        store.compact()
        assert rows(tmp_path / "index", "documents") == 30
        assert_holds(reader, kept, documents)
        assert [one["n"] for one in reader.metadata(reader.snapshot, reader.snapshot.order)] == kept
        with pytest.raises(IndexLockedError, match="close them first"):
            store.compact(purge=True)
        reader.refresh()
        assert_holds(reader, kept[1:], documents[1:])
    store.compact()
    assert rows(tmp_path / "index", "documents") == 19
    assert len(os.listdir(tmp_path / "index" / "segments")) == 1


def test_a_purge_names_who_reads(tmp_path):
    store, _, _ = filled(tmp_path / "index")
    with closing(Store.open(tmp_path / "index")) as reader:
        if os.getpid() not in (holders := reader.files.holders("readers")):
            pytest.skip("/proc/locks does not tell of locks on this file system")
        assert holders == {os.getpid()}
        with pytest.raises(IndexLockedError, match=rf"read by a handle of this process \({os.getpid()}\)"):
            store.compact(purge=True)
    command = "import sys; from metaindex import MetaIndex; index = MetaIndex.open(sys.argv[1]); print(1, flush=True); input()"
    reader = subprocess.Popen(
        [sys.executable, "-c", command, tmp_path / "index"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with reader:
        assert reader.stdout.readline() == "1\n"
        with pytest.raises(IndexLockedError, match=f"read by process {reader.pid};"):
            store.compact(purge=True)
        reader.communicate("\n")
    assert reader.returncode == 0
    store.compact(purge=True)


def test_a_purge_waits_for_another_thread_that_cleans(tmp_path, monkeypatch):
    store, kept, documents = filled(tmp_path / "index")
    waits, real, failed = threading.Event(), Files.lock, []

    def lock(self, name, **options):
        if options.get("wait"):
            waits.set()
        return real(self, name, **options)

    def purge():
        try:
            store.compact(purge=True)
        except BaseException as error:
            failed.append(error)

    monkeypatch.setattr(Files, "lock", lock)
    thread = threading.Thread(target=purge)
    with store._place.alone() as alone:
        assert alone
        thread.start()
        assert waits.wait(30)
        with store._place.alone() as twice:
            assert not twice
    thread.join()
    assert failed == []
    assert_holds(store, kept, documents)
    with store._place.alone(long=True) as alone, store._place.alone() as inside:
        assert (alone, inside) == (True, True)
        with pytest.raises(BlockingIOError):
            real(store.files, "readers", shared=True)
    real(store.files, "readers").release()


def marked(path):
    """An index with one document whose vector, id and metadata hold ``SECRET``; and that id."""
    mark = np.frombuffer(SECRET.ljust(40, b"!")[:40], np.float32)
    tokens = vectors(40, dim=10)
    tokens[7, 3] = mark
    ids = [f"id-{n}" for n in range(40)]
    ids[7] = SECRET.decode() + "-id"
    described = [{"text": f"about {n}"} for n in range(40)]
    described[7] = {SECRET.decode() + "-field": SECRET.decode() + "-metadata"}
    store = Store.create(schema(dim=10, codec="float32"), path)
    for start in range(0, 40, 20):
        part = slice(start, start + 20)
        add(store, tokens[part], None, ids[part], described[part])
    return store, ids[7]


def test_purge_leaves_no_byte(tmp_path):
    path = tmp_path / "index"
    store, secret = marked(path)
    store._catalog._run("PRAGMA secure_delete = OFF")  # as most builds of SQLite have it
    assert every_byte(path).count(SECRET) >= 4
    with store.transaction() as transaction:
        store._catalog.add_fields([SECRET.decode() + "-field"])
        transaction.remove([secret])
    assert SECRET in every_byte(path), "removing alone leaves the bytes, or this test would show nothing"
    store.compact()
    assert SECRET in every_byte(path), "the catalog's free pages still hold the metadata"
    store.compact(purge=True)
    assert SECRET not in every_byte(path)
    assert os.listdir(path / "tmp") == []
    assert sorted(os.listdir(path)) == ["catalog.sqlite", "lock", "readers", "segments", "tmp"]
    assert len(os.listdir(path / "segments")) == len(store.snapshot.segments) == 1
    assert rows(path, "fields") == 1
    store.close()
    assert len(content(Store.open(path, verify=True))) == 39


def test_purge_after_an_update_and_with_a_segment_left_behind(tmp_path):
    path = tmp_path / "index"
    store, secret = marked(path)
    (path / "segments" / "00000099").mkdir()
    (path / "segments" / "00000099" / "documents.safetensors").write_bytes(SECRET)
    (path / "tmp" / "00000098").mkdir()
    (path / "tmp" / "00000098" / "level-0.safetensors").write_bytes(SECRET)
    remove(store, [secret])
    store.compact(purge=True)
    assert SECRET not in every_byte(path)


def test_a_search_that_began_before_a_purge_ends_on_its_snapshot(tmp_path, monkeypatch):
    store, kept, documents = filled(tmp_path / "index")
    taken = []
    real = type(store._place).keep_merged

    def keep_merged(self, *arguments):
        taken.append(store.snapshot)  # as a search in another thread does meanwhile
        return real(self, *arguments)

    monkeypatch.setattr(type(store._place), "keep_merged", keep_merged)
    store.compact(purge=True)
    assert len(os.listdir(tmp_path / "index" / "segments")) == 1
    (old,) = taken
    assert_holds(store, kept, documents, old)
    assert [one["n"] for one in store.metadata(old, old.order)] == kept


def test_levels_that_nobody_mapped_before_a_purge(tmp_path, monkeypatch):
    store, kept, _ = filled(tmp_path / "index")
    remove(store, kept)
    store.close()
    store, taken = Store.open(tmp_path / "index", "r+"), []
    real = Store._refuse_older_snapshots
    monkeypatch.setattr(Store, "_refuse_older_snapshots", lambda self: (taken.append(self.snapshot), real(self)))
    store.compact(purge=True)
    assert os.listdir(tmp_path / "index" / "segments") == []
    levels = [level for segment in taken[0].segments for level in segment.levels]
    assert len(levels) > 3
    assert all(len(level.parts.codes) == level.rows for level in levels)


def test_a_failed_compaction_changes_nothing(tmp_path, monkeypatch):
    store, kept, documents = filled(tmp_path / "index")
    before = store.snapshot

    def write(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("metaindex.storage.files.Files.write", write)
        with pytest.raises(OSError, match="No space"):
            store.compact()
    assert store.snapshot is before
    assert os.listdir(tmp_path / "index" / "tmp") == []
    assert rows(tmp_path / "index", "documents") == 30
    store.compact()
    assert_holds(store, kept, documents)


def test_who_may_compact(tmp_path):
    filled(tmp_path / "index")[0].close()
    reader = Store.open(tmp_path / "index")
    for purge in (False, True):
        with pytest.raises(ReadOnlyError):
            reader.compact(purge=purge)
    reader.close()
    writer = Store.open(tmp_path / "index", "r+")
    with writer.transaction():
        for purge in (False, True):
            with pytest.raises(RuntimeError, match="writing already"):
                writer.compact(purge=purge)


def test_threads_search_write_and_purge(tmp_path):
    store, kept, documents = filled(tmp_path / "index")
    model, wrong, stop = dict(zip(kept, documents)), [], threading.Event()

    def read():
        while not stop.is_set():
            snapshot = store.snapshot
            for id_, tokens in content(store, snapshot):
                if id_ in model and not np.array_equal(tokens, model[id_]):
                    wrong.append(id_)
            if len(store.metadata(snapshot, snapshot.order)) != len(snapshot):
                wrong.append(snapshot.number)
            del snapshot

    def safely():
        try:
            read()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=safely) for _ in range(2)]
    for thread in threads:
        thread.start()
    done = 0
    try:
        for turn in range(40):
            with store.transaction() as transaction:
                transaction.add(vectors(2), full(2), [1000 + 2 * turn, 1001 + 2 * turn], ["{}", "{}"])
                transaction.remove([1000 + 2 * turn])
            try:
                store.compact(purge=turn % 2 == 0)
                done += 1
            except IndexLockedError:  # a search was under way on an older snapshot
                assert turn % 2 == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert done >= 20
    gc.collect()
    store.compact(purge=True)
    assert len(os.listdir(tmp_path / "index" / "segments")) == 1


def test_filters_and_updated_metadata_outlast_a_purge_and_a_snapshot(tmp_path):
    secret = SECRET.decode()
    index = MetaIndex(path=tmp_path / "index", fields=["year"])
    index.add(vectors(6), metadata=[{"year": n, secret: n} for n in range(6)])
    index.update_metadata(range(6), [{"year": 10 + n, "lang": "en"} for n in range(6)])
    index.remove([1, 4])
    assert SECRET in every_byte(tmp_path / "index")
    index.compact(purge=True)
    assert SECRET not in every_byte(tmp_path / "index")
    index.snapshot(tmp_path / "copy")
    index.update_metadata([0], [{"year": 99}])
    for path, years in ((tmp_path / "index", [99, 12, 13, 15]), (tmp_path / "copy", [10, 12, 13, 15])):
        index.close()
        index = MetaIndex.open(path, "r+", verify=True)
        assert [one.metadata["year"] for one in index.get([0, 2, 3, 5])] == years
        assert sorted(index.search(vectors(1)[0], 2, filter={"year": {"$in": [12, 15]}}).ids[0].tolist()) == [2, 5]
        assert index.search(vectors(1)[0], 1, filter={"year": 99}).ids[0].tolist() == ([0] if 99 in years else [-1])
    index.close()


def test_the_facade(tmp_path):
    for path in (None, tmp_path / "index"):
        index = MetaIndex(path=path)
        index.add(vectors(6), metadata=[{"n": n} for n in range(6)])
        index.remove([1, 4])
        before = index.search(vectors(1, seed=3)[0], 4)
        index.compact(purge=True)
        after = index.search(vectors(1, seed=3)[0], 4)
        np.testing.assert_array_equal(after.ids, before.ids)
        np.testing.assert_array_equal(after.scores, before.scores)
        assert [json.dumps(one.metadata) for one in index.get([0, 5])] == ['{"n": 0}', '{"n": 5}']
        assert list(index) == [0, 2, 3, 5]
        index.close()
