"""Handles beside one another: in one process, across a fork, across a save that replaces the folder, beside hostile files."""

from __future__ import annotations

import gc
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

from metaindex.errors import CorruptIndexError, ForkedProcessError, IndexLockedError, NotAnIndexError, ReadOnlyError
from metaindex.storage import catalog
from metaindex.storage.catalog import NAME
from metaindex.storage.files import Files
from metaindex.storage.store import Store
from metaindex.storage.where import parsed
from tests.storage.support import add, assert_holds, content, full, schema, vectors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking with threads
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
PROBE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
    print("free")
except sqlite3.OperationalError as error:
    print(error)
"""


def in_child(work, meanwhile=lambda: None):
    """The exit status of a forked child that runs ``work``: 0 when it returns something true."""
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            status = int(not work())
        os._exit(status)
    meanwhile()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_reader_in_the_writers_process_leaves_its_locks_alone(index):
    writer = Store.open(index, "r+")
    with writer.transaction() as transaction:
        transaction.add(vectors(1), full(1), [7])
        Store.open(index, verify=True).close()
        with pytest.raises(IndexLockedError):
            Store.create(schema()).save(index, overwrite=True)
        probe = [sys.executable, "-c", PROBE, str(index / NAME)]
        assert "locked" in subprocess.run(probe, capture_output=True, text=True, check=True).stdout
    assert len(Store.open(index).snapshot) == 3


def test_files_never_open_the_catalog(index):
    files = Files(index)
    for use in (lambda: files.head(NAME, 1), lambda: files.checksum(NAME), lambda: files.lock(NAME), lambda: files.sync(NAME)):
        with pytest.raises(ValueError, match="no name"):
            use()


def hostile_journal(index, victim):
    """One that names a super-journal: SQLite unlinks that file when it plays the journal back."""
    page, name = 4096, os.fsencode(victim)
    pages = os.path.getsize(index / NAME) // page
    head = (JOURNAL_MAGIC + struct.pack(">IIIII", 0, 1, pages, 512, page)).ljust(512, b"\0")
    end = struct.pack(">I", 0x40000000 // page + 1) + name + struct.pack(">II", len(name), sum(name)) + JOURNAL_MAGIC
    (index / f"{NAME}-journal").write_bytes(head + end)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_hostile_journal_is_not_played_back(index, tmp_path, mode):
    victim = tmp_path / "thesis.txt"
    victim.write_text("ten years of work")
    hostile_journal(index, victim)
    with pytest.raises(CorruptIndexError, match="journal"):
        Store.open(index, mode)
    with pytest.raises(CorruptIndexError, match="journal"):
        Store.create(schema()).save(index, overwrite=True)
    (tmp_path / "elsewhere").write_bytes(b"x")
    journal = index / f"{NAME}-journal"
    for make in (lambda: journal.symlink_to(tmp_path / "elsewhere"), journal.mkdir, lambda: os.mkfifo(journal)):
        if journal.exists():
            journal.rmdir() if journal.is_dir() and not journal.is_symlink() else journal.unlink()
        make()
        with pytest.raises(CorruptIndexError, match="can't be a journal"):
            Store.open(index, mode)
    assert victim.read_text() == "ten years of work"


def test_a_journal_of_a_killed_writer_is_rolled_back_by_a_reader(index):
    def die_while_writing():
        writer = sqlite3.connect(index / NAME, isolation_level=None)
        for statement in ("PRAGMA cache_size = 1", "BEGIN", "DELETE FROM documents"):
            writer.execute(statement)
        writer.executemany("INSERT INTO documents VALUES (?, ?, 9, NULL, 0)", ((n, "x" * 900) for n in range(99)))
        os._exit(0)

    assert in_child(die_while_writing) == 0
    assert (index / f"{NAME}-journal").exists()
    assert_holds(Store.open(index, verify=True), range(2), vectors(2))
    assert not (index / f"{NAME}-journal").exists()


@pytest.mark.parametrize("mode", ["wal", "files"])
def test_wal_is_refused(index, mode):
    if mode == "files":
        (index / f"{NAME}-wal").symlink_to("/dev/null")
    else:
        connection = sqlite3.connect(index / NAME)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    for access in ("r", "r+"):
        with pytest.raises(CorruptIndexError, match=r"(?i)wal"):
            Store.open(index, access)


def test_close_inside_a_write_is_refused(index):
    store = Store.open(index, "r+")
    with store.transaction() as transaction:
        with pytest.raises(RuntimeError, match="writing already"):
            store.close()
        transaction.add(vectors(1), full(1), [7])
    store.close()
    assert len(Store.open(index).snapshot) == 3


class _Gate(Files):
    """A reader that waits between opening the folder and locking it."""

    waits: threading.Event | None = None
    waiting = threading.Event()

    def lock(self, name, **options):
        if options.get("shared") and _Gate.waits:
            gate, _Gate.waits = _Gate.waits, None
            _Gate.waiting.set()
            gate.wait(30)
        return super().lock(name, **options)


def test_a_reader_across_a_save_opens_what_stands_then(index):
    _Gate.waits = gate = threading.Event()
    found = []
    reader = threading.Thread(target=lambda: found.append(content(Store.open(index, files=_Gate))))
    reader.start()
    assert _Gate.waiting.wait(30)
    other = Store.create(schema())
    add(other, vectors(5))
    other.save(index, overwrite=True)
    gate.set()
    reader.join()
    assert [id_ for id_, _ in found[0]] == list(range(5))


@pytest.mark.parametrize("swap", [True, False])
def test_a_replaced_folder_that_stays_is_no_failure(index, monkeypatch, swap):
    def remove(self, name):
        if name.endswith(".staging" if swap else ".replaced"):
            removals.append(name)
            raise OSError(5, "Input/output error")
        real(self, name)

    removals, real = [], Files.remove
    monkeypatch.setattr(Files, "remove", remove)
    if not swap:
        monkeypatch.setattr(Files, "exchange", lambda self, one, other: False)
    other = Store.create(schema())
    add(other, vectors(1))
    other.save(index, overwrite=True)
    assert removals
    assert_holds(Store.open(index, verify=True), [0], vectors(1))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("swap", "call"), [*((True, call) for call in range(3)), *((False, call) for call in range(4))])
def test_an_interrupted_save_leaves_one_index(index, monkeypatch, swap, call, moment):
    calls = []

    def interrupted(real):
        def operation(self, *arguments):
            ours = self.root == str(index.parent) and not (arguments and arguments[0].endswith(".staging.replaced"))
            if ours:
                calls.append(arguments)
            if ours and len(calls) == call + 1 and moment == "before":
                raise KeyboardInterrupt
            found = real(self, *arguments)
            if ours and len(calls) == call + 1:
                raise KeyboardInterrupt
            return found

        return operation

    other = Store.create(schema())
    add(other, vectors(5, seed=3))
    if not swap:
        monkeypatch.setattr(Files, "exchange", lambda self, one, other: False)
    for name in ("make_folder", "rename", "sync_folder", *["exchange"] * swap):
        monkeypatch.setattr(Files, name, interrupted(getattr(Files, name)))
    with pytest.raises(KeyboardInterrupt):
        other.save(index, overwrite=True)
    monkeypatch.undo()
    assert_holds(Store.open(index, verify=True), range(2), vectors(2))
    assert os.listdir(index.parent) == ["index"]


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_transaction_leaves_a_store_that_writes(index, monkeypatch, statement, moment):
    store = Store.open(index, "r+")
    real = store._catalog._run

    def interrupted(sql, values=()):
        if sql == statement and moment == "before":
            raise KeyboardInterrupt
        found = real(sql, values)
        if sql == statement:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(store._catalog, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(store, vectors(1), ids=[50])
    monkeypatch.undo()
    stands = [0, 1, 50] if (statement, moment) == ("COMMIT", "after") else [0, 1]
    assert [id_ for id_, _ in content(store)] == stands
    add(store, vectors(1), ids=[60])
    store.close()
    assert [id_ for id_, _ in content(Store.open(index, verify=True))] == [*stands, 60]


def test_a_slow_refresh_does_not_undo_a_later_one(index, monkeypatch):
    writer, reader = Store.open(index, "r+"), Store.open(index)
    add(writer, vectors(1))
    real, second = reader._catalog.state, threading.Thread(target=reader.refresh)

    def slow():
        state = real()
        if second.ident is None:
            add(writer, vectors(1))
            second.start()
            second.join(0.2)
        return state

    monkeypatch.setattr(reader._catalog, "state", slow)
    reader.refresh()
    second.join()
    assert len(reader.snapshot) == 4


def test_relative_paths_stand_for_the_folder_they_were_opened_in(index, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = Store.open("index", "r+")
    monkeypatch.chdir("/")
    assert store.path == str(index)
    with pytest.raises(ValueError, match="own folder"):
        store.save(index, overwrite=True)


def test_two_leading_slashes_and_odd_names(tmp_path):
    for name in ("plain", "a b%20?c#d", "caf\udce9"):
        store = Store.create(schema(), f"/{tmp_path}/{name}")
        add(store, vectors(1))
        store.close()
        assert len(Store.open(f"/{tmp_path}/{name}").snapshot) == 1


def test_errors_of_sqlite_say_what_to_do(index, monkeypatch):
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, **{**options, "timeout": 0}))
    store = Store.open(index, "r+")
    reader = real(index / NAME, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    with pytest.raises(IndexLockedError, match="try again"):
        add(store, vectors(1))
    reader.close()
    add(store, vectors(1))
    os.rename(index, f"{index}.moved")
    with pytest.raises(ReadOnlyError, match="moved or removed; open it again"):
        add(store, vectors(1))


@pytest.mark.parametrize("how", ["exception", "end"])
def test_a_child_that_leaves_a_write_does_not_end_it(index, how):
    store = Store.open(index, "r+")
    parent = os.getpid()
    try:
        with store.transaction() as transaction:
            transaction.add(vectors(1, seed=1), full(1), [7])
            child = os.fork()
            if child == 0 and how == "exception":
                raise KeyError
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert os.listdir(index / "tmp") == ["00000001"]
                assert (index / f"{NAME}-journal").exists()
    except (KeyError, ForkedProcessError):
        if os.getpid() == parent:
            raise
        del store, transaction
        gc.collect()  # as the end of the child would
        os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    store.close()
    assert [id_ for id_, _ in content(Store.open(index, verify=True))] == [0, 1, 7]


@pytest.mark.parametrize("asked", ["metadata", "matching", "save"])
def test_a_child_does_not_miss_metadata_that_its_parent_dropped(index, tmp_path, asked):
    store = Store.open(index, "r+")
    with store.transaction() as transaction:
        transaction.update_metadata([0, 1], ['{"a":0}', '{"a":1}'], ["a"])
    told, go = os.pipe()

    def ask(store):
        if asked == "metadata":
            return store.metadata(store.snapshot, np.arange(2)) == [{"a": 0}, {"a": 1}]
        if asked == "matching":
            return store.matching(store.snapshot, parsed({"a": 1})).tolist() == [1]
        store.save(tmp_path / "saved")
        return ask_in("metadata", Store.open(tmp_path / "saved"))

    def ask_in(what, store):
        nonlocal asked
        asked = what
        return ask(store)

    def late():
        os.read(told, 1)
        for _ in range(2):
            with pytest.raises(ForkedProcessError, match="open the index here"):
                ask(store)
        return ask_in("metadata", Store.open(index)) is False  # the update is seen

    def write():
        try:
            with store.transaction() as transaction:
                transaction.update_metadata([0], ['{"a":9}'], ["a"])
            store.compact()
        finally:
            os.write(go, b"x")

    assert in_child(late, write) == 0


def test_a_child_that_reads_keeps_what_it_sees(index):
    store = Store.open(index, "r+")
    with store.transaction() as transaction:
        transaction.update_metadata([0, 1], ['{"a":0}', '{"a":1}'], ["a"])
    (ready, is_ready), (told, go) = os.pipe(), os.pipe()

    def read():
        try:
            found = [store.metadata(store.snapshot, np.arange(2))]
        finally:
            os.write(is_ready, b"x")
        os.read(told, 1)
        found.append(store.metadata(store.snapshot, np.arange(2)))
        assert store.matching(store.snapshot, parsed({"a": 0})).tolist() == [0]
        assert [id_ for id_, _ in content(store)] == [0, 1]
        store.close()
        Store.open(index, "r+").compact(purge=True)  # it let go of its lock
        return found == [[{"a": 0}, {"a": 1}]] * 2

    def write():
        try:
            os.read(ready, 1)
            with store.transaction() as transaction:
                transaction.update_metadata([0], ['{"a":9}'], ["a"])
                transaction.remove([1])
            store.compact()
            with pytest.raises(IndexLockedError, match=r"it is read by .*process"):
                store.compact(purge=True)
        finally:
            store.close()
            os.write(go, b"x")

    assert in_child(read, write) == 0


def test_threads_of_a_child_share_no_connection_with_the_parent(index, monkeypatch):
    store = Store.open(index)
    real, used = catalog.connect, []

    def read():
        begun, go = threading.Event(), threading.Event()

        def connect(*arguments, **options):
            begun.set()
            go.wait()
            return real(*arguments, **options)

        monkeypatch.setattr(catalog, "connect", connect)
        inherited = store._catalog._connection

        def look():
            with store._catalog._usable() as connection:
                used.append(connection is inherited)

        threads = [threading.Thread(target=look) for _ in range(2)]
        threads[0].start()
        begun.wait()
        threads[1].start()
        threads[1].join(0.2)  # time to do the wrong thing; the right one is to wait
        go.set()
        for thread in threads:
            thread.join()
        return used == [False, False]

    assert in_child(read) == 0


def test_a_child_is_told_that_its_segments_are_gone(index):
    store = Store.open(index, "r+")
    told, go = os.pipe()

    def read():
        os.read(told, 1)
        try:
            store.snapshot.segments[0].levels[0].parts.codes.sum()
        except ForkedProcessError as error:
            return "open the index again" in str(error)
        return False

    def merge():
        for seed in range(3):
            add(store, vectors(2, seed=seed))
        gc.collect()
        os.write(go, b"x")

    assert in_child(read, meanwhile=merge) == 0


def test_merged_segments_go_when_the_reader_has_gone(index):
    writer, reader = Store.open(index, "r+"), Store.open(index)
    for seed in range(3):
        add(writer, vectors(2, seed=seed))
    gc.collect()
    assert len(os.listdir(index / "segments")) > len(writer.snapshot.segments) == 1
    reader.close()
    add(writer, vectors(1))
    assert len(os.listdir(index / "segments")) == len(writer.snapshot.segments) == 2


def test_a_reader_does_not_wait_for_ever(index, monkeypatch):
    monkeypatch.setattr("metaindex.storage.folder._WAIT_SECONDS", 0.05)
    held = Files(index).lock("readers")
    with pytest.raises(IndexLockedError, match="does not end"):
        Store.open(index)
    held.release()
    Store.open(index).close()


def test_stray_files_are_left_alone(index):
    for name in ("tmp/.DS_Store", "segments/123", "segments/²", "segments/١٢٣٤٥٦٧٨"):
        (index / name).write_text("x")
    store = Store.open(index, "r+")
    add(store, vectors(1))
    assert {"123", "²", "١٢٣٤٥٦٧٨"} <= set(os.listdir(index / "segments"))
    assert os.listdir(index / "tmp") == [".DS_Store"]


@pytest.mark.parametrize("name", ["segments/notes.txt", "tmp/notes.txt", "segments/00000000/notes.txt", "notes.txt"])
def test_save_destroys_no_foreign_file(index, name):
    (index / name).write_text("x")
    with pytest.raises(NotAnIndexError, match="notes"):
        Store.create(schema()).save(index, overwrite=True)
    assert (index / name).read_text() == "x"


def test_missing_parts(index):
    (index / "tmp").rmdir()
    Store.open(index).close()
    Store.open(index, "r+").close()
    assert (index / "tmp").is_dir()
    os.rename(index / "segments", index / "elsewhere")
    for mode in ("r", "r+"):
        with pytest.raises(CorruptIndexError, match="segments"):
            Store.open(index, mode)
    os.rename(index / "elsewhere", index / "segments")
    for name, mode in (("lock", "r+"), ("readers", "r")):
        (index / name).unlink()
        with pytest.raises(NotAnIndexError, match=f"no file '{name}'"):
            Store.open(index, mode)
    with pytest.raises(NotAnIndexError, match="no file 'lock'"):
        Store.create(schema()).save(index, overwrite=True)


def test_paths_are_text(index):
    for use in (Store.open, lambda path: Store.create(schema(), path), Store.create(schema()).save):
        with pytest.raises(TypeError, match="path: expected text"):
            use(os.fsencode(index))


def test_one_segment_has_one_lookup(index):
    store = Store.open(index)
    ids = np.arange(2)
    before = store.memory()["documents"]["ram"]
    assert store.locate(store.snapshot, ids).tolist() == [0, 1]
    assert store.memory()["documents"]["ram"] - before == store.snapshot.id_lookup.nbytes
    assert store.snapshot.id_lookup is store.snapshot.segments[0].id_lookup
