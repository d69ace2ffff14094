"""Index folders: what may be opened, created and replaced, who may write, and what a failure leaves behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import sqlite3

import numpy as np
import pytest

from metaindex.errors import (
    ClosedError,
    CorruptIndexError,
    ForkedProcessError,
    IndexLockedError,
    NotAnIndexError,
    ReadOnlyError,
    UnsupportedFormatError,
)
from metaindex.storage.catalog import APPLICATION_ID
from metaindex.storage.files import Files
from metaindex.storage.store import Store
from tests.storage.support import add, assert_holds, full, schema, vectors


@pytest.fixture
def index(tmp_path):
    """A closed index of four documents in two segments."""
    path = tmp_path / "index"
    store = Store.create(schema(), path)
    add(store, vectors(2))
    add(store, vectors(2, seed=1))
    store.close()
    return path


def sqlite_file(path, application_id=0, version=0):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {application_id}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()


def test_bad_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing here"):
        Store.open(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        Store.open(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAnIndexError, match="no file 'readers'"):
        Store.open(tmp_path / "empty")
    for name in ("none", "text", "short", "other", "newer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "readers").touch()
    with pytest.raises(NotAnIndexError, match="no readable catalog"):
        Store.open(tmp_path / "none")
    (tmp_path / "text" / "catalog.sqlite").write_bytes(b"hello" * 100)
    with pytest.raises(NotAnIndexError, match="no SQLite database"):
        Store.open(tmp_path / "text")
    (tmp_path / "short" / "catalog.sqlite").write_bytes(b"hello")
    with pytest.raises(CorruptIndexError, match="truncated to 5 bytes"):
        Store.open(tmp_path / "short")
    sqlite_file(tmp_path / "other" / "catalog.sqlite", 7, 1)
    with pytest.raises(NotAnIndexError, match="another application"):
        Store.open(tmp_path / "other")
    sqlite_file(tmp_path / "newer" / "catalog.sqlite", APPLICATION_ID, 99)
    with pytest.raises(UnsupportedFormatError, match="upgrade metaindex"):
        Store.open(tmp_path / "newer")
    with pytest.raises(ValueError, match="mode: expected"):
        Store.open(tmp_path / "newer", "w")


def test_create_refuses_what_exists(tmp_path, index):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    for name in ("file", "empty", "link", "index"):
        with pytest.raises(FileExistsError):
            Store.create(schema(), tmp_path / name)
        with pytest.raises(FileExistsError):
            Store.create(schema()).save(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Store.create(schema(), tmp_path / "absent" / "index")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "index", "link"]
    assert_holds(Store.open(index), range(4), [*vectors(2), *vectors(2, seed=1)])


def test_save_replaces_an_index_and_nothing_else(tmp_path, index):
    other = Store.create(schema())
    add(other, vectors(1, seed=5))
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    os.symlink(index, tmp_path / "link")
    for name in ("file", "empty", "link"):
        with pytest.raises(NotAnIndexError):
            other.save(tmp_path / name, overwrite=True)
    (index / "precious.txt").write_text("x")
    with pytest.raises(NotAnIndexError, match=r"precious\.txt"):
        other.save(index, overwrite=True)
    (index / "precious.txt").unlink()

    reader = Store.open(index)
    with pytest.raises(IndexLockedError, match="open elsewhere"):
        other.save(index, overwrite=True)
    assert_holds(reader, range(4), [*vectors(2), *vectors(2, seed=1)])
    reader.close()
    writer = Store.open(index, "r+")
    with pytest.raises(IndexLockedError, match="open elsewhere"):
        other.save(index, overwrite=True)
    with pytest.raises(ValueError, match="own folder"):
        writer.save(index, overwrite=True)
    writer.close()
    other.save(index, overwrite=True)
    other.save(tmp_path / "fresh", overwrite=True)
    for path in (index, tmp_path / "fresh"):
        assert_holds(Store.open(path, verify=True), [0], vectors(1, seed=5))
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "fresh", "index", "link"]


def test_one_writer_many_readers(index):
    writer = Store.open(index, "r+")
    with pytest.raises(IndexLockedError, match=f"process {os.getpid()}"):
        Store.open(index, "r+")
    reader = Store.open(index)
    with pytest.raises(ReadOnlyError), reader.transaction():
        pass
    add(writer, vectors(1, seed=2))
    assert len(reader.snapshot) == 4
    before = reader.snapshot
    reader.refresh()
    assert len(reader.snapshot) == 5
    assert reader.snapshot.segments[0] is before.segments[0]
    writer.close()
    Store.open(index, "r+").close()


def test_use_after_close(index):
    store = Store.open(index, "r+")
    snapshot = store.snapshot
    store.close()
    store.close()
    assert store.closed
    for use in (lambda: store.snapshot, store.refresh, lambda: store.metadata(snapshot, np.arange(1)), store.memory):
        with pytest.raises(ClosedError):
            use()
    with pytest.raises(ClosedError), store.transaction():
        pass
    assert snapshot.segments[0].levels[0].parts.codes.shape == (2, 1, 5), "a search that is under way ends"


def _in_child(store, answers):
    try:
        with store.transaction():
            answers.put("wrote")
    except ForkedProcessError:
        rows = store.locate(store.snapshot, [1])
        answers.put(
            (
                rows.tolist(),
                store.metadata(store.snapshot, rows),
                float(store.snapshot.segments[0].levels[0].parts.codes[1, 0, 0]),
            )
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking with threads, which is the point here
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_a_forked_child_reads_and_does_not_write(tmp_path, on_disk):
    store = Store.create(schema(), tmp_path / "index" if on_disk else None)
    add(store, vectors(2), None, None, [None, {"a": 1}])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(store, answers))
    child.start()
    assert answers.get(timeout=30) == ([1], [{"a": 1}], float(np.float16(vectors(2)[1, 0, 0])))
    child.join()
    add(store, vectors(1))
    assert len(store.snapshot) == 3


def test_a_forked_child_does_not_keep_the_lock(index):
    store = Store.open(index, "r+")
    started, stop = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(started[1], b"x")
        os.read(stop[0], 1)
        os._exit(0)
    try:
        os.read(started[0], 1)
        store.close()
        Store.open(index, "r+").close()
    finally:
        os.write(stop[1], b"x")
        os.waitpid(child, 0)
        for fd in (*started, *stop):
            os.close(fd)


def test_the_next_writer_cleans_up(index):
    (index / "tmp" / "00000009").mkdir()
    (index / "tmp" / "00000009" / "level-0.safetensors").write_bytes(b"half")
    shutil.copytree(index / "segments" / "00000000", index / "segments" / "00000002")  # moved in place, never committed
    Store.open(index).close()
    assert len(os.listdir(index / "segments")) == 3, "a reader removes nothing"
    store = Store.open(index, "r+")
    assert os.listdir(index / "tmp") == []
    assert sorted(os.listdir(index / "segments")) == ["00000000", "00000001"]
    assert_holds(store, range(4), [*vectors(2), *vectors(2, seed=1)])


def test_merged_segments_stay_while_somebody_reads_them(index):
    writer = Store.open(index, "r+")
    old = writer.snapshot
    add(writer, vectors(2, seed=2))
    add(writer, vectors(2, seed=3))
    assert len(writer.snapshot.segments) == 1
    gc.collect()
    assert {"00000000", "00000001"} <= set(os.listdir(index / "segments"))
    assert_holds(writer, range(4), [*vectors(2), *vectors(2, seed=1)], old)
    del old
    gc.collect()
    assert len(os.listdir(index / "segments")) == 1


def test_a_reader_keeps_the_segments_of_its_snapshot(index):
    reader, writer = Store.open(index), Store.open(index, "r+")
    add(writer, vectors(2, seed=2))
    add(writer, vectors(2, seed=3))
    gc.collect()
    assert_holds(reader, range(4), [*vectors(2), *vectors(2, seed=1)])
    writer.close()
    reader.close()
    Store.open(index, "r+").close()
    assert len(os.listdir(index / "segments")) == 1


class _Full(Files):
    """A disk that is full after some writes."""

    left = 0

    def write(self, name, chunks):
        if _Full.left == 0:
            raise OSError(28, "No space left on device", name)
        _Full.left -= 1
        return super().write(name, chunks)

    def rename(self, source, target):
        if _Full.left == 0:
            raise OSError(5, "Input/output error", source)
        super().rename(source, target)


def add_twice(store):
    with store.transaction() as transaction:
        transaction.add(vectors(3, seed=7), full(3), [10, 11, 12])
        transaction.add(vectors(3, seed=8), full(3), [20, 21, 22])


@pytest.mark.parametrize("writes", range(10))  # two additions write five files each, then both are renamed
def test_a_failed_write_leaves_the_last_commit(index, writes):
    _Full.left = 100
    store = Store.open(index, "r+", files=_Full)
    before = store.snapshot
    _Full.left = writes
    with pytest.raises(OSError, match=r"No space|Input/output"):
        add_twice(store)
    assert store.snapshot is before
    assert os.listdir(index / "tmp") == []
    assert sorted(os.listdir(index / "segments")) == ["00000000", "00000001"]
    _Full.left = 100
    add_twice(store)
    store.close()
    documents = [vectors(2), vectors(2, seed=1), vectors(3, seed=7), vectors(3, seed=8)]
    assert_holds(Store.open(index, verify=True), [0, 1, 2, 3, 10, 11, 12, 20, 21, 22], np.concatenate(documents))


def test_a_failed_save_leaves_nothing(tmp_path):
    _Full.left = 100
    store = Store.create(schema(), tmp_path / "index", files=_Full)
    add(store, vectors(3))
    _Full.left = 4
    with pytest.raises(OSError, match="No space"):
        store.save(tmp_path / "saved")
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("name", ["level-0.safetensors", "level-3.safetensors", "documents.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "link", "folder", "empty"])
def test_damaged_files_are_found_at_open(index, tmp_path, name, damage):
    path = index / "segments" / "00000000" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-1])
    elif damage == "longer":
        path.write_bytes(data + b"\0")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptIndexError, match=name):
        Store.open(index)


def test_changed_vectors_are_found_by_checksums(index):
    path = index / "segments" / "00000001" / "level-2.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    Store.open(index).close()
    with pytest.raises(CorruptIndexError, match=r"level-2\.safetensors: its checksum is wrong \(2 documents"):
        Store.open(index, verify=True)


@pytest.mark.parametrize("keep", [0, 50, 100, 4096, 8192])
def test_a_truncated_catalog(index, keep):
    path = index / "catalog.sqlite"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptIndexError):
        Store.open(index)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER evil AFTER INSERT ON meta BEGIN DELETE FROM meta; END",
        "CREATE VIEW evil AS SELECT * FROM meta",
        "UPDATE meta SET value = '5' WHERE key = 'next_segment' AND 0; DELETE FROM meta WHERE key = 'schema'",
        "UPDATE meta SET value = '[]' WHERE key = 'schema'",
        "UPDATE meta SET value = replace(value, '\"dim\": 5', '\"dim\": -5') WHERE key = 'schema'",
        "UPDATE meta SET value = replace(value, '\"dim\": 5', '\"dim\": 6') WHERE key = 'schema'",
        "UPDATE meta SET value = replace(value, 'float16', '../../x') WHERE key = 'schema'",
        "UPDATE meta SET value = 'x' WHERE key = 'commit'",
        "UPDATE segments SET number = 99999999999999",
        "UPDATE segments SET rows = 4000000000000000000",
        "UPDATE segments SET rows = 'many'",
        "UPDATE segments SET bytes = bytes + 1",
        "UPDATE levels SET rows = 1 WHERE level = 3",
        "DELETE FROM levels WHERE level = 1",
        "DELETE FROM levels WHERE level = 3",
        "UPDATE levels SET bytes = -1",
    ],
)
def test_a_hostile_catalog(index, statement):
    connection = sqlite3.connect(index / "catalog.sqlite")
    connection.executescript(statement.replace("UPDATE segments SET number = 9", "UPDATE segments SET number = number + 9"))
    connection.commit()
    connection.close()
    with pytest.raises(CorruptIndexError):
        Store.open(index)


def test_a_catalog_that_names_other_documents(index):
    connection = sqlite3.connect(index / "catalog.sqlite")
    connection.execute("UPDATE documents SET id = 77 WHERE id = 1")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptIndexError, match="wrong checksum"):
        Store.open(index, verify=True)
