"""Snapshots as folders: linked where that can be, copied where not, of one commit, beside a writer."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.errors import ClosedError, CorruptIndexError, IndexLockedError
from metaindex.storage.files import Files
from metaindex.storage.store import Store
from tests.storage.support import add, assert_holds, content, full, schema, vectors


@pytest.fixture
def index(tmp_path):
    """A closed index of four documents in two segments, one of them removed."""
    path = tmp_path / "index"
    store = Store.create(schema(), path)
    add(store, vectors(2), None, None, [{"n": 0}, {"n": 1}])
    add(store, vectors(2, seed=1))
    with store.transaction() as transaction:
        transaction.remove([0])
    store.close()
    return path


def documents():
    return [vectors(2)[1], *vectors(2, seed=1)]


def inodes(path):
    return {entry.inode() for folder, _, _ in os.walk(path / "segments") for entry in os.scandir(folder) if entry.is_file()}


def assert_copied(path):
    with_all = Store.open(path, "r+", verify=True)
    assert_holds(with_all, [1, 2, 3], documents())
    assert with_all.metadata(with_all.snapshot, with_all.locate(with_all.snapshot, [1, 2])) == [{"n": 1}, None]
    add(with_all, vectors(1, seed=5))
    assert_holds(with_all, [1, 2, 3, 4], [*documents(), vectors(1, seed=5)[0]])
    with_all.close()
    assert sorted(os.listdir(path)) == ["catalog.sqlite", "lock", "readers", "segments", "tmp"]


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_snapshot_is_an_index_of_its_own(index, tmp_path, mode):
    store = Store.open(index, mode)
    store.snapshot_to(tmp_path / "copy")
    assert inodes(tmp_path / "copy") == inodes(index)
    assert_copied(tmp_path / "copy")
    assert_holds(store, [1, 2, 3], documents())
    assert sorted(os.listdir(tmp_path)) == ["copy", "index"]
    for taken in (tmp_path / "copy", index):
        with pytest.raises(FileExistsError):
            store.snapshot_to(taken)
    store.close()
    with pytest.raises(ClosedError):
        store.snapshot_to(tmp_path / "late")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_where_nothing_can_be_linked_files_are_copied(index, tmp_path, monkeypatch, code):
    def link(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    store = Store.open(index, "r+")
    store.snapshot_to(tmp_path / "copy")
    assert not inodes(tmp_path / "copy") & inodes(index)
    assert_copied(tmp_path / "copy")


def test_copied_files_are_synced(index, tmp_path, monkeypatch):
    synced, real = set(), Files.sync

    def sync(self, name):
        synced.add(name)
        real(self, name)

    def link(*arguments, **options):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Files, "sync", sync)
    monkeypatch.setattr(os, "link", link)
    Store.open(index).snapshot_to(tmp_path / "copy")
    written = {os.path.relpath(os.path.join(at, name), index) for at, _, names in os.walk(index / "segments") for name in names}
    assert synced == written


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_snapshot_leaves_nothing(index, tmp_path, monkeypatch, code):
    def link(*arguments, **options):
        raise OSError(code, os.strerror(code))

    store = Store.open(index, "r+")
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link)
        with pytest.raises(OSError, match=os.strerror(code)):
            store.snapshot_to(tmp_path / "copy")
    assert os.listdir(tmp_path) == ["index"]
    add(store, vectors(1))


@pytest.mark.parametrize("damage", ["missing", "truncated", "link", "folder", "changed"])
def test_a_damaged_source_is_not_copied(index, tmp_path, monkeypatch, damage):
    store = Store.open(index)
    path = index / "segments" / "00000001" / "level-2.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-1])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        path.mkdir()
    elif damage == "changed":  # a copy has to read it all, so it can see this

        def link(*arguments, **options):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", link)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptIndexError, match="level-2"):
        store.snapshot_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not [name for name in os.listdir(tmp_path) if "staging" in name]


def test_what_is_written_later_is_not_in_it(index, tmp_path):
    store = Store.open(index, "r+")
    reader = Store.open(index)
    with store.transaction() as transaction:
        transaction.add(vectors(1, seed=7), full(1), [70])
        done = threading.Event()

        def snapshot():
            store.snapshot_to(tmp_path / "during")
            done.set()

        thread = threading.Thread(target=snapshot)
        thread.start()
        assert done.wait(30), "a snapshot waits for no writer"
        thread.join()
    assert_copied(tmp_path / "during")
    reader.snapshot_to(tmp_path / "after")
    assert [id_ for id_, _ in content(Store.open(tmp_path / "after", verify=True))] == [1, 2, 3, 70]
    assert len(reader.snapshot) == 3, "a reader's own view stays"


def test_merges_and_purges_meanwhile(index, tmp_path):
    store = Store.open(index, "r+")
    store.snapshot_to(tmp_path / "copy")
    store.compact(purge=True)
    for seed in range(4):
        add(store, vectors(2, seed=seed))
    store.close()
    assert_copied(tmp_path / "copy")


def test_segments_stay_while_they_are_linked(index, tmp_path, monkeypatch):
    store, real = Store.open(index, "r+"), Files.link

    def link(self, name, source):
        if name.endswith("documents.safetensors") and "00000000" in name:
            with pytest.raises(IndexLockedError, match="close them first"):
                store.compact(purge=True)
            store.compact()
        real(self, name, source)

    monkeypatch.setattr(Files, "link", link)
    store.snapshot_to(tmp_path / "copy")
    assert_copied(tmp_path / "copy")
    store.compact(purge=True)
    assert len(os.listdir(index / "segments")) == 1


def test_snapshots_beside_a_writer(tmp_path):
    """Commit n holds the documents n .. 2n, so a mixture of two commits would show."""
    tokens = vectors(48)
    store = Store.create(schema(), tmp_path / "index")
    stop, wrong, seen = threading.Event(), [], []

    def copies():
        number = 0
        while not stop.is_set():
            store.snapshot_to(tmp_path / f"copy-{number}")
            copy = Store.open(tmp_path / f"copy-{number}", verify=True)
            commit = copy.snapshot.number
            seen.append(commit)
            if [id_ for id_, _ in content(copy)] != list(range(commit, 2 * commit)):
                wrong.append(commit)
            copy.close()
            number += 1

    def safely():
        try:
            copies()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=safely)
    thread.start()
    try:
        for commit in range(1, 25):
            fresh = np.arange(2 * (commit - 1), 2 * commit)
            with store.transaction() as transaction:
                transaction.add(tokens[fresh], full(2), fresh)
                transaction.remove([commit - 1])
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert len(seen) >= 1


def test_deleted_pages_of_another_process_are_no_matter(index, tmp_path):
    """A snapshot is taken from a folder that another process writes to."""
    writer, reader = Store.open(index, "r+"), Store.open(index)
    add(writer, vectors(1, seed=3))
    reader.snapshot_to(tmp_path / "copy")
    connection = sqlite3.connect(tmp_path / "copy" / "catalog.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
    connection.close()
    assert len(Store.open(tmp_path / "copy", verify=True).snapshot) == 4


def test_the_facade(tmp_path):
    for path in (None, tmp_path / "index"):
        index = MetaIndex(path=path)
        index.add(vectors(6))
        dst = tmp_path / f"copy-{path is None}"
        index.snapshot(dst)
        with pytest.raises(FileExistsError):
            index.snapshot(dst)
        with MetaIndex.open(dst, verify=True) as copy:
            assert list(copy) == list(range(6))
        index.close()


@pytest.mark.parametrize("inside", ["copy", "tmp/copy", "segments/00000009"])
def test_no_index_is_made_in_the_folder_of_another(index, inside):
    """Its next writer would take what stands there for a leftover, and remove it."""
    before = sorted(os.walk(index))
    with MetaIndex.open(index) as opened:
        for make in (opened.snapshot, opened.save, lambda path: MetaIndex(path=path)):
            with pytest.raises(ValueError, match="lies in the folder of an index"):
                make(index / inside)
    assert sorted(os.walk(index)) == before
