"""A copy of an index on disk as of its last commit: the catalog copied, the segments, which never change, linked."""

from __future__ import annotations

import errno
import os

from metaindex.errors import NotAnIndexError
from metaindex.storage import derived, folder
from metaindex.storage.catalog import Catalog, State
from metaindex.storage.derived import CoarseRecord
from metaindex.storage.files import Files, Written
from metaindex.storage.place import SEGMENTS, record_files, segment_name
from metaindex.storage.tensors import damaged

# Another file system, a file of another owner, no links at all, too many of them.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def copy(source: Files, path: str | os.PathLike[str]) -> None:
    """Copy the last commit of the index in ``source`` to a new folder at ``path``; see ``Store.snapshot_to``."""
    with folder.staged(path, type(source)) as staging:
        lock = folder.lock_for_reading(source)  # what the copied catalog names stays while it is held
        try:
            state, coarse = _copy_catalog(source, staging)
            for record in state.segments:
                staging.make_folder(f"{SEGMENTS}/{segment_name(record.number)}")
                for name, written in record_files(record):
                    _link_or_copy(name, written, source, staging)
                staging.sync_folder(f"{SEGMENTS}/{segment_name(record.number)}")
            if coarse is not None:
                derived.link(source, staging, coarse)
        finally:
            lock.release()


def _copy_catalog(source: Files, staging: Files) -> tuple[State, CoarseRecord | None]:
    # A connection of its own: through that of a writer, a transaction that is under way in another thread would be seen.
    catalog = Catalog.open(source, writable=False)
    try:
        if not source.stands_at(source.root):  # SQLite goes by the path, the links by the folder
            raise NotAnIndexError(f"{source.root}: the index was moved or replaced; open it again")
        catalog.copy_to(staging)
    finally:
        catalog.close()
    copied = Catalog.open(staging, writable=False)
    try:
        return copied.state(), CoarseRecord.from_json(copied.coarse())
    finally:
        copied.close()


def _link_or_copy(name: str, expected: Written, source: Files, staging: Files) -> None:
    try:
        try:
            staging.link(name, source)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            written = staging.copy(name, source)
            if written != expected:
                raise damaged(name, "its size or checksum is wrong") from None
            staging.sync(name)
        else:
            size = staging.head(name, 0)[1]
            if size != expected.size:
                raise damaged(name, f"it has {size:,} bytes, not {expected.size:,}")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR):
            raise damaged(name, f"it is missing or no regular file ({error.strerror})") from None
        raise
