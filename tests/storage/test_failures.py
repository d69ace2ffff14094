"""Failures around a commit and around whole folders: what stands afterwards, what may still be done, and what is told."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from metaindex.errors import CorruptIndexError, IndexLockedError, ReadOnlyError, UnknownIdError
from metaindex.storage import folder
from metaindex.storage.files import ANY_NAME, Files, Lock
from metaindex.storage.store import Store
from tests.storage.support import add, assert_holds, content, schema, vectors


def ids(store):
    return [id_ for id_, _ in content(store)]


def segments(index):
    return sorted(os.listdir(index / "segments"))


def fail(monkeypatch, target, name, code, when=lambda *arguments: True):
    """Let ``target.name`` fail where ``when`` says so; returns the calls that failed."""
    real, failed = getattr(target, name), []

    def operation(self, *arguments, **options):
        if when(*arguments):
            failed.append(arguments)
            raise OSError(code, os.strerror(code), *arguments[:1])
        return real(self, *arguments, **options)

    monkeypatch.setattr(target, name, operation)
    return failed


class Connection:
    """The catalog's connection, with statements that fail: before they run, or when they have run."""

    def __init__(self, real, faults, moment="before", message="disk I/O error"):
        self.real, self.faults, self.moment, self.message = real, faults, moment, message

    def execute(self, sql, values=()):
        hit = any(sql.startswith(fault) for fault in self.faults)
        if hit and self.moment == "before":
            raise sqlite3.OperationalError(self.message)
        found = self.real.execute(sql, values)
        if hit:
            raise sqlite3.OperationalError(self.message)
        return found

    def __getattr__(self, name):
        return getattr(self.real, name)


def remove_in_turn(store, *turns):
    with store.transaction() as transaction:
        for turn in turns:
            transaction.remove(turn)


def assert_writes_no_more(store, match):
    for write in (lambda: add(store, vectors(1)), store.compact, lambda: store.compact(purge=True)):
        with pytest.raises(ReadOnlyError, match=match):
            write()


# syncs


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("name", "when"), [("sync", "level-0"), ("sync", "documents"), ("sync_folder", "tmp/"), ("sync_folder", "segments")]
)
def test_after_a_failed_sync_a_handle_only_reads(index, monkeypatch, name, when, code):
    store = Store.open(index, "r+")
    with monkeypatch.context() as patched:
        failed = fail(patched, Files, name, code, lambda *arguments: arguments and when in arguments[0])
        with pytest.raises(OSError, match=os.strerror(code)):
            add(store, vectors(1), metadata=[{"a": 1}])
        assert failed
    assert_writes_no_more(store, f"a sync failed .*{os.strerror(code)}.*open the index again")
    assert_holds(store, range(2), vectors(2))
    assert store.metadata(store.snapshot, store.snapshot.order) == [None, None]
    assert segments(index) == ["00000000"]
    assert os.listdir(index / "tmp") == []
    store.refresh()
    store.close()
    again = Store.open(index, "r+", verify=True)
    add(again, vectors(1, seed=1))
    assert ids(again) == [0, 1, 2]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["write", "rename", "make_folder"])
def test_after_a_failed_write_the_next_one_works(index, monkeypatch, name, code):
    store = Store.open(index, "r+")
    with monkeypatch.context() as patched:
        fail(patched, Files, name, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            add(store, vectors(1, seed=1))
    assert os.listdir(index / "tmp") == []
    add(store, vectors(1, seed=1))
    store.close()
    assert_holds(Store.open(index, verify=True), range(3), [*vectors(2), *vectors(1, seed=1)])


LATE = """
import atexit, sys, threading
from metaindex.storage.store import Store
from tests.storage.support import add, schema, vectors

store = Store.open(sys.argv[1], "r+")

def late():
    threading.main_thread().join()
    add(store, vectors(1, seed=1))

atexit.register(lambda: add(store, vectors(1, seed=2)))
threading.Thread(target=late).start()
"""


def test_a_write_after_the_end_of_the_main_thread(index):
    subprocess.run([sys.executable, "-c", LATE, str(index)], check=True, timeout=60, capture_output=True)
    assert_holds(Store.open(index, verify=True), range(4), [*vectors(2), *vectors(1, seed=1), *vectors(1, seed=2)])


def test_a_write_needs_no_more_threads_than_there_are(index, monkeypatch):
    asked = []

    def start(self):
        asked.append(self)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    store = Store.open(index, "r+")
    add(store, vectors(1, seed=1))
    assert asked
    assert ids(store) == [0, 1, 2]


def test_a_failed_sync_of_a_save_is_no_matter_of_the_source(index, tmp_path, monkeypatch):
    store = Store.open(index, "r+")
    for copy in (store.save, store.snapshot_to):
        with monkeypatch.context() as patched:
            fail(patched, Files, "sync_folder", errno.EIO)
            with pytest.raises(OSError, match="Input/output"):
                copy(tmp_path / "copy")
        assert os.listdir(tmp_path) == ["index"]
    add(store, vectors(1))


def test_a_failed_sync_of_a_purge(index, monkeypatch):
    store = Store.open(index, "r+")
    with store.transaction() as transaction:
        transaction.remove([0])
    with monkeypatch.context() as patched:
        fail(patched, Files, "sync_folder", errno.EIO, lambda *arguments: arguments == ("tmp",))
        with pytest.raises(OSError, match="Input/output"):
            store.compact(purge=True)
    assert_writes_no_more(store, "purge it again")
    store.close()
    again = Store.open(index, "r+", verify=True)
    again.compact(purge=True)
    assert_holds(again, [1], vectors(2)[1:])


# commits


@pytest.mark.parametrize("faults", [["COMMIT"], ["COMMIT", "ROLLBACK"], ["COMMIT", "ROLLBACK", "SELECT value FROM meta"]])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_that_fails_on_the_disk(index, faults, moment):
    store = Store.open(index, "r+")
    store._catalog._connection = Connection(store._catalog._connection, faults, moment)
    with pytest.raises(OSError, match="disk I/O error"):
        add(store, vectors(1, seed=1))
    made = moment == "after"
    unknown = len(faults) == 3 or (faults[-1] == "ROLLBACK" and not made)  # what is committed needs no rollback
    assert_writes_no_more(store, "unknown" if unknown else "a sync failed")
    assert ids(store) == ([0, 1, 2] if made and not unknown else [0, 1])
    assert store.metadata(store.snapshot, store.snapshot.order)[:2] == [None, None]
    assert (len(segments(index)) == 2) == (unknown or made), "what the catalog may name is not removed"
    store.refresh()
    assert ids(store) == ([0, 1, 2] if made else [0, 1])
    Store.open(index).close()
    store.close()
    again = Store.open(index, "r+", verify=True)
    assert len(segments(index)) == 1 + made
    add(again, vectors(1, seed=2), ids=[9])
    assert ids(again) == ([0, 1, 2, 9] if made else [0, 1, 9])


@pytest.mark.parametrize("message", ["database or disk is full", "database is locked"])
def test_a_commit_that_can_be_made_again(index, message):
    store = Store.open(index, "r+")
    real = store._catalog._connection
    store._catalog._connection = Connection(real, ["COMMIT"], message=message)
    with pytest.raises((OSError, IndexLockedError)):
        add(store, vectors(1, seed=1))
    assert segments(index) == ["00000000"]
    store._catalog._connection = real
    add(store, vectors(1, seed=1))
    assert ids(store) == [0, 1, 2]


def test_a_rollback_that_fails_hides_nothing(index):
    store = Store.open(index, "r+")
    store._catalog._connection = Connection(store._catalog._connection, ["ROLLBACK"])
    with pytest.raises(UnknownIdError, match="77"):
        remove_in_turn(store, [0], [77])
    assert_writes_no_more(store, "no write ends .*disk I/O error")
    assert ids(store) == [0, 1]
    store.close()
    assert ids(Store.open(index, "r+", verify=True)) == [0, 1]


def test_a_discard_that_fails_hides_nothing_and_is_made_up_for(index, monkeypatch):
    store = Store.open(index, "r+")
    with monkeypatch.context() as patched:
        fail(patched, Files, "rename", errno.ENOSPC)
        failed = fail(patched, Files, "remove", errno.EIO)
        with pytest.raises(OSError, match="No space"):
            add(store, vectors(1, seed=1))
        assert failed
    assert os.listdir(index / "tmp") == ["00000001"]
    add(store, vectors(1, seed=1))
    assert ids(store) == [0, 1, 2]
    assert os.listdir(index / "tmp") == []


# snapshots that outlive a handle


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_snapshot_that_outlives_its_handle_finds_its_files(index, mode):
    store = Store.open(index, mode)
    snapshot = store.snapshot
    store.close()
    writer = Store.open(index, "r+")
    for seed in range(3):
        add(writer, vectors(2, seed=seed))
    assert len(writer.snapshot.segments) == 1
    with pytest.raises(IndexLockedError):
        writer.compact(purge=True)
    assert_holds(writer, range(2), vectors(2), snapshot)
    del snapshot
    writer.compact(purge=True)
    assert len(segments(index)) == 1


def test_without_a_lock_it_says_that_they_are_gone(index):
    store = Store.open(index, "r+")
    snapshot = store.snapshot
    alone = Files(index).lock("readers")
    store.close()
    alone.release()
    writer = Store.open(index, "r+")
    for seed in range(3):
        add(writer, vectors(2, seed=seed))
    with pytest.raises(CorruptIndexError, match="open the index again"):
        content(writer, snapshot)


# folders around an index


def leftover(parent, name, files=("lock", "readers", "catalog.sqlite", "catalog.sqlite-journal")):
    path = parent / name
    (path / "segments" / "00000000").mkdir(parents=True)
    (path / "segments" / "00000000" / "level-0.safetensors").write_bytes(b"x")
    for each in files:
        (path / each).touch()
    return path


@pytest.mark.parametrize("how", ["create", "save", "snapshot", "overwrite"])
def test_leftovers_of_killed_processes_go(index, tmp_path, how):
    name = "index" if how == "overwrite" else "new"
    for suffix in ("01234567.staging", "89abcdef.staging", *["00000000.staging.replaced"] * (how == "overwrite")):
        leftover(tmp_path, f".{name}.{suffix}")
    (tmp_path / f".{name}.11111111.staging").mkdir()  # killed before it held anything
    leftover(tmp_path, f".{name}.22222222.staging", ())  # killed while it was removed
    others = [f".{name}.x.staging", f".{name}2.01234567.staging", "a.staging"]
    for other in others:
        leftover(tmp_path, other)
    (leftover(tmp_path, f".{name}.33333333.staging") / "precious.txt").touch()
    (tmp_path / f".{name}.44444444.staging").symlink_to(index)
    store = Store.open(index) if how == "snapshot" else Store.create(schema())
    if how == "create":
        Store.create(schema(), tmp_path / name).close()
    elif how == "snapshot":
        store.snapshot_to(tmp_path / name)
    else:
        store.save(tmp_path / name, overwrite=how == "overwrite")
    stays = {*others, f".{name}.33333333.staging", f".{name}.44444444.staging", "index", name}
    assert set(os.listdir(tmp_path)) == stays
    assert sorted(os.listdir(index)) == ["catalog.sqlite", "lock", "readers", "segments", "tmp"]


@pytest.mark.parametrize("held", ["lock", "readers"])
def test_a_staging_folder_in_use_stays(tmp_path, held):
    lock = Files(leftover(tmp_path, ".new.01234567.staging")).lock(held, shared=held == "readers")
    Store.create(schema()).save(tmp_path / "new")
    assert set(os.listdir(tmp_path)) == {".new.01234567.staging", "new"}
    lock.release()
    Store.create(schema()).save(tmp_path / "new", overwrite=True)
    assert os.listdir(tmp_path) == ["new"]


def test_one_save_leaves_the_staging_folder_of_another_alone(tmp_path, monkeypatch):
    first, second, real = Store.create(schema()), Store.create(schema()), Files.sync_folder
    add(first, vectors(1))
    turns = []

    def sync_folder(self, name=""):
        if self.root.endswith(".staging") and not turns:
            turns.append(self.root)
            second.save(tmp_path / "new")
        real(self, name)

    monkeypatch.setattr(Files, "sync_folder", sync_folder)
    with pytest.raises(FileExistsError):
        first.save(tmp_path / "new")
    assert turns
    assert os.listdir(tmp_path) == ["new"]
    assert ids(Store.open(tmp_path / "new", verify=True)) == []


@pytest.mark.parametrize(("target", "step"), [(Files, "make_folder"), (Files, "write"), (Files, "lock"), (Lock, "acquire")])
def test_a_staging_folder_that_is_taken_for_a_leftover_is_made_anew(tmp_path, monkeypatch, target, step):
    """Another process looks for leftovers after the folder is made, after its lock is, and before that is opened or locked."""
    real, taken = getattr(target, step), []

    def operation(self, *arguments, **options):
        found = real(self, *arguments, **options) if step in ("make_folder", "write") else None
        names = [name for name in os.listdir(tmp_path) if name.endswith(".staging")]
        if names and not taken:
            taken.extend(names)
            Store.create(schema()).save(tmp_path / "other")  # of another name: it leaves this one alone
            folder._remove_leftovers(Files(tmp_path, ANY_NAME), "new", Files)
            assert not set(names) & set(os.listdir(tmp_path))
        return found if step in ("make_folder", "write") else real(self, *arguments, **options)

    monkeypatch.setattr(target, step, operation)
    store = Store.create(schema())
    add(store, vectors(1))
    store.save(tmp_path / "new")
    assert taken
    assert set(os.listdir(tmp_path)) == {"new", "other"}
    assert ids(Store.open(tmp_path / "new", verify=True)) == [0]


def test_a_replaced_folder_stays_while_the_name_is_missing(index, tmp_path):
    os.rename(index, tmp_path / ".index.01234567.staging.replaced")
    Store.create(schema()).save(tmp_path / "index")
    assert ids(Store.open(tmp_path / ".index.01234567.staging.replaced")) == [0, 1]
    Store.create(schema()).save(tmp_path / "index", overwrite=True)
    assert os.listdir(tmp_path) == ["index"], "now it stands, so what it replaced goes"


KILLED = """
import os, signal, sys
from metaindex.storage.files import Files
from metaindex.storage.schema import Schema
from metaindex.storage.store import Store
from metaindex.types import Levels
real = Files.sync_folder
def sync_folder(self, name=""):
    if self.root.endswith(".staging"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, name)
Files.sync_folder = sync_folder
Store.create(Schema(dim=5, levels=Levels.doubling(8)), sys.argv[1])
"""


def test_a_killed_creation_leaves_what_the_next_one_removes(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "new")], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".new.")
    assert left.endswith(".staging")
    Store.create(schema(), tmp_path / "new").close()
    assert os.listdir(tmp_path) == ["new"]


def test_the_path_is_never_missing_while_an_index_is_replaced(index, monkeypatch):
    seen, real = [], Files.rename
    monkeypatch.setattr(Files, "rename", lambda self, *names: (real(self, *names), seen.append(os.path.exists(index))))
    probe = Files(index.parent, ANY_NAME)
    (index.parent / "a").mkdir()
    (index.parent / "b").mkdir()
    assert probe.exchange("a", "b"), "this file system can't exchange two names, so this test can't tell"
    other = Store.create(schema())
    add(other, vectors(3, seed=3))
    other.save(index, overwrite=True)
    assert all(seen)
    assert_holds(Store.open(index, verify=True), range(3), vectors(3, seed=3))


def test_where_names_cannot_be_exchanged_two_renames_do(index, monkeypatch):
    calls = []

    def renameat2(*arguments):
        calls.append(arguments)
        ctypes.set_errno(errno.EINVAL)
        return -1

    for replacement in (renameat2, None):
        monkeypatch.setattr("metaindex.storage.files._renameat2", replacement)
        other = Store.create(schema())
        add(other, vectors(3, seed=3))
        other.save(index, overwrite=True)
        assert_holds(Store.open(index, verify=True), range(3), vectors(3, seed=3))
        assert os.listdir(index.parent) == ["index"]
    assert len(calls) == 1


def test_an_exchange_that_fails_otherwise_says_so(index, tmp_path):
    files = Files(tmp_path, ANY_NAME)
    with pytest.raises(FileNotFoundError):
        files.exchange("index", "absent")


def test_a_new_index_whose_name_is_not_durable_goes(tmp_path, monkeypatch):
    fail(monkeypatch, Files, "sync_folder", errno.EIO, lambda *arguments: not arguments and (tmp_path / "new").exists())
    with pytest.raises(OSError, match="Input/output"):
        Store.create(schema(), tmp_path / "new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "x" * 229, "x" * 228, "é" * 127])
def test_long_names(tmp_path, name):
    path = tmp_path / name
    (tmp_path / f".{name[:100]}").mkdir()
    store = Store.create(schema(), path)
    add(store, vectors(1))
    store.close()
    other = Store.create(schema())
    other.save(path, overwrite=True)
    assert ids(Store.open(path)) == []


def test_leftovers_of_long_names_go(tmp_path):
    leftover(tmp_path, f".{folder._stem('x' * 250)}.01234567.staging")
    leftover(tmp_path, f".{folder._stem('x' * 251)}.01234567.staging")
    Store.create(schema(), tmp_path / ("x" * 250)).close()
    assert len(os.listdir(tmp_path)) == 2


def test_a_name_that_no_file_may_have(tmp_path):
    for make in (lambda path: Store.create(schema(), path), Store.create(schema()).save, Store.create(schema()).snapshot_to):
        with pytest.raises(OSError, match="at most 255 bytes, got 256") as caught:
            make(tmp_path / ("é" * 128))
        assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(tmp_path) == []


def test_deep_folders_are_removed(index):
    outer = os.open(index / "tmp", os.O_RDONLY)
    os.mkdir("00000009", dir_fd=outer)
    for name in ("00000009", *["deeper"] * 1100):
        inner = os.open(name, os.O_RDONLY, dir_fd=outer)
        os.close(outer)
        os.mkdir("deeper", dir_fd=inner)
        os.mkdir("beside", dir_fd=inner)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.symlink("/", "link", dir_fd=inner)
        outer = inner
    os.close(outer)
    Store.open(index, "r+").close()
    assert os.listdir(index / "tmp") == []
