"""Index folders as a whole: made beside their final place, filled, synced, and moved there in one step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from metaindex.errors import IndexLockedError, NotAnIndexError
from metaindex.storage.catalog import NAME, Catalog, Counters, check_header
from metaindex.storage.files import ANY_NAME, Files
from metaindex.storage.merge import Held, Merge
from metaindex.storage.place import LOCK, READERS, SEGMENTS, STAGING, FolderPlace
from metaindex.storage.transaction import Current

SAVED_SEGMENT_BYTES = 1 << 30
_BATCH = 100_000
_CONTENT = {NAME, f"{NAME}-journal", LOCK, READERS, SEGMENTS, STAGING}


def existing(path: str | os.PathLike[str], files: type[Files]) -> Files:
    """The files of the folder at ``path``.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
    """
    try:
        return files(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{os.fspath(path)}: there is nothing here; create an index with MetaIndex(path=...)") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"{os.fspath(path)}: expected the folder of an index, found a file") from None


@contextmanager
def staged(path: str | os.PathLike[str], files: type[Files], *, overwrite: bool = False) -> Iterator[Files]:
    """An empty index folder to fill; it comes to stand at ``path`` when the block ends, and goes away when it fails."""
    if not os.fspath(path):
        raise ValueError("path: expected the name of a folder, got ''")
    parent, last = os.path.split(os.path.abspath(os.fspath(path)))
    around = files(parent, ANY_NAME)
    replaced = _replaceable(path, around, last, files) if overwrite else None
    if replaced is None:
        _refuse_existing(path)
    staging = f".{last}.{os.urandom(4).hex()}.staging"
    around.make_folder(staging)
    try:
        inside = files(os.path.join(parent, staging))
        for name in (SEGMENTS, STAGING):
            inside.make_folder(name)
        for name in (LOCK, READERS):
            inside.write(name, ())
        yield inside
        for name in (SEGMENTS, ""):
            inside.sync_folder(name)
        if replaced is None:
            _refuse_existing(path)
            around.rename(staging, last)
        else:
            _exchange(around, staging, last)
        around.sync_folder()
    except BaseException:
        around.remove(staging)
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


def _refuse_existing(path: str | os.PathLike[str]) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{os.fspath(path)}: it exists already; choose another path, or save with overwrite=True")


def _replaceable(path: str | os.PathLike[str], around: Files, last: str, files: type[Files]) -> Files | None:
    """The index at ``path`` that may be replaced, ``None`` where nothing stands."""
    if last not in around.list():
        return None
    if os.path.islink(path) or not os.path.isdir(path):
        raise NotAnIndexError(f"{os.fspath(path)}: overwrite=True replaces an index, and this is none")
    found = files(path)
    check_header(found)
    if foreign := set(found.list()) - _CONTENT:
        raise NotAnIndexError(f"{os.fspath(path)}: it holds {min(foreign)!r}, which is no part of an index; move it away first")
    return found


def _exchange(around: Files, staging: str, last: str) -> None:
    """Put ``staging`` in the place of ``last``; if that fails, ``last`` stands as before."""
    old = type(around)(around.path(last))
    locks = []
    try:
        for name in (LOCK, READERS):
            locks.append(old.lock(name))
        aside = f"{staging}.replaced"
        around.rename(last, aside)
        try:
            around.rename(staging, last)
        except BaseException:
            around.rename(aside, last)
            raise
        around.remove(aside)
    except BlockingIOError:
        raise IndexLockedError(f"{old.root}: it is open elsewhere; close it there first, or save to another path") from None
    finally:
        for lock in locks:
            lock.release()
