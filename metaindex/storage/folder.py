"""Index folders as a whole: made beside their final place, filled, synced, and moved there in one step."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

from metaindex.errors import IndexLockedError, NotAnIndexError
from metaindex.storage.catalog import Catalog, Counters
from metaindex.storage.database import NAME
from metaindex.storage.files import ANY_NAME, INDEX_NAMES, Files, Lock
from metaindex.storage.merge import Held, Merge
from metaindex.storage.place import LOCK, READERS, SEGMENTS, STAGING, FolderPlace
from metaindex.storage.transaction import Current

SAVED_SEGMENT_BYTES = 1 << 30
_BATCH = 100_000
_WAIT_SECONDS = 30.0
_ATTEMPTS = 10
_NAME_BYTES = 255


def existing(path: str | os.PathLike[str], files: type[Files]) -> Files:
    """The files of the folder at ``path``.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        TypeError: ``path`` is no text.
    """
    try:
        return files(_text(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(path)}: there is nothing here; create an index with MetaIndex(path=...)") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"{os.fspath(path)}: expected the folder of an index, found a file") from None


def locked(path: str | os.PathLike[str], files: type[Files], *, writable: bool) -> tuple[Files, Lock]:
    """The folder at ``path`` and its lock, taken anew when a save puts another folder there meanwhile."""
    for _ in range(_ATTEMPTS):
        opened = existing(path, files)
        try:
            lock = _lock_for_writing(opened) if writable else lock_for_reading(opened)
        except FileNotFoundError as error:
            if opened.stands_at(path):
                raise NotAnIndexError(f"{opened.root}: no index, it has no file {error.filename!r}") from None
            continue
        if opened.stands_at(path):
            return opened, lock
        lock.release()
    raise IndexLockedError(f"{os.fspath(path)}: it is replaced again and again; try again later")


def lock_for_reading(files: Files) -> Lock:
    """A shared lock on ``readers``: while it is held, no file of the last commit goes.

    Raises:
        IndexLockedError: somebody held it alone for too long.
    """
    try:
        return files.lock(READERS, shared=True, wait=_WAIT_SECONDS)
    except BlockingIOError:
        raise IndexLockedError(f"{files.root}: a process that replaces or cleans it does not end; try again later") from None


def _lock_for_writing(files: Files) -> Lock:
    try:
        lock = files.lock(LOCK)
    except BlockingIOError:
        holder = files.head(LOCK, 200)[0].decode(errors="replace") or "another process"
        raise IndexLockedError(f"{files.root}: {holder} is writing to it; close it, or open with mode='r'") from None
    files.note(LOCK, f"process {os.getpid()} on {socket.gethostname()}")
    return lock


@contextmanager
def staged(path: str | os.PathLike[str], files: type[Files], *, overwrite: bool = False) -> Iterator[Files]:
    """An empty index folder to fill; it comes to stand at ``path`` when the block ends, and goes away when it fails.

    While it is filled, its ``lock`` is held: what nobody holds is a leftover, which the next one to stage for ``path`` removes.
    """
    if not _text(path):
        raise ValueError("path: expected the name of a folder, got ''")
    parent, last = os.path.split(os.path.abspath(path))
    if (length := len(os.fsencode(last))) > _NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, f"path: expected a name of at most {_NAME_BYTES} bytes, got {length}", last)
    _refuse_inside_an_index(parent, path)
    around = files(parent, ANY_NAME)
    replaces = overwrite and _replaceable(path, around, last, files)
    if not replaces:
        _refuse_existing(path)
    _remove_leftovers(around, last, files)
    for _ in range(_ATTEMPTS):
        staging = f".{_stem(last)}.{os.urandom(4).hex()}.staging"
        lock = None
        try:
            try:
                around.make_folder(staging)
                inside = files(around.path(staging))
                inside.write(LOCK, ())
                lock = inside.lock(LOCK)
            except (FileNotFoundError, BlockingIOError):  # another process took it for a leftover
                continue
            if not inside.stands_at(around.path(staging)):
                continue
            for name in (SEGMENTS, STAGING):
                inside.make_folder(name)
            inside.write(READERS, ())
            yield inside
            for name in (SEGMENTS, ""):
                inside.sync_folder(name)
            if replaces:
                _exchange(around, staging, last)
            else:
                _refuse_existing(path)
                _place(around, inside, staging, last)
            return
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                around.remove(staging)
            raise
        finally:
            if lock is not None:
                lock.release()
    raise IndexLockedError(f"{os.fspath(path)}: another process saves to it again and again; try again later")


def _stem(last: str) -> str:
    """What names beside ``last`` start with: ``last`` itself, or where they would be too long a part of it and a hash."""
    encoded = os.fsencode(last)
    if len(encoded) + len("..01234567.staging.replaced") <= _NAME_BYTES:
        return last
    return f"{encoded[:180].decode(errors='ignore')}~{hashlib.sha256(encoded).hexdigest()[:16]}"


def _remove_leftovers(around: Files, last: str, files: type[Files]) -> None:
    """Remove what killed processes staged for ``last``. Where ``last`` is missing, a ``.replaced`` folder is the index."""
    names = re.compile(rf"\.{re.escape(_stem(last))}\.[0-9a-f]{{8}}\.staging(\.replaced)?")
    for name in around.list():
        if found := names.fullmatch(name):
            with suppress(OSError):  # in use, gone meanwhile, or not this process's to remove
                _remove_leftover(around, name, last if found[1] else None, files)


def _remove_leftover(around: Files, name: str, needed: str | None, files: type[Files]) -> None:
    if os.path.islink(around.path(name)):
        return
    leftover, locks = files(around.path(name)), []
    inside = leftover.list()
    if not inside:  # who makes a folder writes the lock into it first, so this fails where someone goes on with it
        around.remove_empty(name)
        return
    if any(_foreign(leftover)):
        return
    try:
        for each in (LOCK, READERS):
            if each in inside:
                locks.append(leftover.lock(each))
        if needed is None or needed in around.list():  # looked at again: its owner may have been killed at a bad moment
            around.remove(name)
    finally:
        for lock in locks:
            lock.release()


def _place(around: Files, inside: Files, staging: str, last: str) -> None:
    """Give a new index its name; if that fails, it has none."""
    try:
        around.rename(staging, last)
        around.sync_folder()
    except BaseException:
        if inside.stands_at(around.path(last)):
            around.rename(last, staging)
        raise


def save(current: Current, catalog: Catalog, path: str | os.PathLike[str], *, overwrite: bool, files: type[Files]) -> None:
    """Write the documents that stand in ``current``, whose metadata ``catalog`` knows, to a folder; see ``Store.save``."""
    with staged(path, files, overwrite=overwrite) as staging:
        schema, place = current.schema, FolderPlace(staging)
        groups = [group for group in _groups(current.held) if any(one.segment.rows > len(one.removed) for one in group)]
        counters = current.counters._replace(commit=1, next_segment=len(groups))
        written = Catalog.create(staging, schema)
        try:
            with written.transaction():
                for number, group in enumerate(groups):
                    merge = Merge(group, schema)
                    place.write(number, merge.documents, merge.sources(), schema)
                    _copy_documents(merge, catalog, current.counters, written)
                written.add_fields(catalog.fields())
                if catalog.in_transaction:  # names that a write under way brought would be in it
                    written.drop_unused_fields()
                for record in place.publish(range(len(groups))):
                    written.add_segment(record, counters.commit)
                written.put(schema, counters)
        finally:
            written.close()


def _groups(held: tuple[Held, ...]) -> Iterator[list[Held]]:
    """Neighbouring segments that are saved as one."""
    group: list[Held] = []
    for one in held:
        if group and sum(each.segment.nbytes for each in (*group, one)) > SAVED_SEGMENT_BYTES:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _copy_documents(merge: Merge, source: Catalog, counters: Counters, target: Catalog) -> None:
    order = np.argsort(merge.documents.sequence)
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        sequence = merge.documents.sequence[batch].tolist()
        target.add_documents(sequence, merge.documents.ids[batch].tolist(), 1)
        target.add_metadata(source.metadata(sequence, counters.commit).items(), 1)


def _text(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path: expected text or a pathlib.Path, got {type(name).__name__}; os.fsdecode makes text of bytes")
    return name


def _refuse_existing(path: str | os.PathLike[str]) -> None:
    if os.path.lexists(path):
        raise FileExistsError(
            f"{os.fspath(path)}: it exists already; choose another path (save with overwrite=True replaces an index)"
        )


def _refuse_inside_an_index(parent: str, path: str | os.PathLike[str]) -> None:
    """What an index folder holds besides its own files its writer removes, or a save that replaces it refuses."""
    folder = os.path.realpath(parent)
    while (above := os.path.dirname(folder)) != folder:
        if all(os.path.lexists(os.path.join(folder, name)) for name in (NAME, LOCK, READERS)):
            raise ValueError(f"path: {os.fspath(path)!r} lies in the folder of an index, {folder!r}; choose one outside of it")
        folder = above


def _replaceable(path: str | os.PathLike[str], around: Files, last: str, files: type[Files]) -> bool:
    """Whether an index stands at ``path``; nothing may, but nothing else."""
    if last not in around.list():
        return False
    if os.path.islink(path) or not os.path.isdir(path):
        raise NotAnIndexError(f"{os.fspath(path)}: overwrite=True replaces an index, and this is none")
    found = files(path)
    if foreign := next(_foreign(found), None):
        raise NotAnIndexError(f"{os.fspath(path)}: it holds {foreign!r}, which is no part of an index; move it away first")
    Catalog(found, writable=False).close()
    return True


def _foreign(files: Files, folder: str = "") -> Iterator[str]:
    """What no writer of an index puts into its folder."""
    for name in files.list(folder):
        inner = f"{folder}/{name}" if folder else name
        if inner == NAME:
            continue
        if not INDEX_NAMES.fullmatch(inner):
            yield inner
        elif stat.S_ISDIR(os.lstat(files.path(inner)).st_mode):
            yield from _foreign(files, inner)


def _exchange(around: Files, staging: str, last: str) -> None:
    """Put ``staging`` in the place of ``last``; if that fails, ``last`` stands as before.

    In one step where the system can, so that ``last`` is never missing.
    """
    old = type(around)(around.path(last))
    aside, locks = f"{staging}.replaced", []
    try:
        try:
            for name in (LOCK, READERS):
                locks.append(old.lock(name))
        except FileNotFoundError as error:
            raise NotAnIndexError(f"{old.root}: no index, it has no file {error.filename!r}") from None
        try:
            swapped = around.exchange(staging, last)
            if not swapped:
                around.rename(last, aside)
                around.rename(staging, last)
            around.sync_folder()
        except BaseException:
            standing = around.list()  # an interrupt may come before a change or after it
            if aside in standing:
                if last in standing:
                    around.rename(last, staging)
                around.rename(aside, last)
            elif not old.stands_at(around.path(last)):
                around.exchange(staging, last)
            raise
        _remove_replaced(around, staging if swapped else aside)
    except BlockingIOError:
        raise IndexLockedError(f"{old.root}: it is open elsewhere; close it there first, or save to another path") from None
    finally:
        for lock in locks:
            lock.release()


def _remove_replaced(around: Files, aside: str) -> None:
    """The save is done, so a folder that can't be removed is no failure of it."""
    with suppress(OSError):
        try:
            around.remove(aside)
        except BaseException:  # once more, so that an interrupt leaves nothing
            around.remove(aside)
            raise
