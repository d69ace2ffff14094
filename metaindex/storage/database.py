"""Connecting to the SQLite file of an index, and SQLite's errors in this package's words."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
import zlib
from typing import Any
from urllib.parse import quote

from metaindex.errors import CorruptIndexError, IndexLockedError, MetaIndexError, NotAnIndexError, ReadOnlyError
from metaindex.storage.files import Files

NAME = "catalog.sqlite"
JOURNAL = f"{NAME}-journal"
_HEADER_BYTES = 100
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # made once: every row of the catalog has a checksum


def connect(files: Files | None, *, writable: bool, new: bool = False) -> sqlite3.Connection:
    """A connection to the catalog of a folder, or without one in memory; only ``new`` makes the file.

    Raises:
        NotAnIndexError: there is no catalog.
        CorruptIndexError: it is truncated, or has a journal that SQLite must not see.
    """
    target, name = ":memory:", NAME
    if files is not None:
        name = files.path(NAME)
        if not new:
            _check_files(files)
        # A reader takes write access where it has it: only so can SQLite undo what a killed writer left half done.
        mode = "rwc" if new else "rw" if writable or os.access(name, os.W_OK) else "ro"
        target = f"file://{quote(os.fsencode(name))}?mode={mode}"
    settings = ["cell_size_check = ON", "foreign_keys = OFF", "temp_store = MEMORY"]
    if files is not None and writable:
        # EXTRA syncs the folder when the journal is gone. With FULL a power loss could bring the journal back, and so undo a
        # commit that was answered, or whose replaced segments are unlinked. Spilling would lock readers out while a long
        # addition is still under way.
        settings += ["synchronous = EXTRA", "cache_spill = OFF"]
        if new:
            settings.append("journal_mode = DELETE")
    if not writable:
        settings.append("query_only = ON")
    try:
        connection = sqlite3.connect(target, timeout=30, isolation_level=None, check_same_thread=False, uri=True)
        sums = row_checksum if files is not None else lambda *columns: 0  # memory is trusted, and bytes are dear
        connection.create_function("row_checksum", -1, sums, deterministic=True)
        _distrust(connection)
        for setting in settings:
            connection.execute(f"PRAGMA {setting}").fetchall()
        if files is not None and writable:
            # SQLite quietly opens for reading what it can't open for writing; that is to be known now, not at the first write.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # a message may quote the damage
        raise translated(error, name) from None
    return connection


def _distrust(connection: sqlite3.Connection) -> None:
    """Don't let the file call functions; but some versions of SQLite count JSON among those, which indexes of fields need.

    Reading a schema runs nothing of it, and the catalog is closed again unless its texts are those that this package writes.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        if "unsafe use of json_" in str(error):
            connection.execute("PRAGMA trusted_schema = ON")


def checksum(values: Any) -> int:
    """The CRC-32 of values that JSON can hold, as a compact text in UTF-8."""
    return zlib.crc32(_ENCODER.encode(values).encode())


def row_checksum(*columns: Any) -> int | None:
    try:
        return checksum(columns)
    except (TypeError, ValueError):  # a blob, or text that is no UTF-8: nothing that a writer puts there
        return None


def translated(error: Exception, path: str) -> MetaIndexError | OSError:
    """What an error of SQLite means for the catalog at ``path``, and what to do about it."""
    text = str(error)
    if "not a database" in text:
        return NotAnIndexError(f"{path}: no index, this is no SQLite database")
    if "locked" in text:
        return IndexLockedError(f"{path}: another process is using it; try again")
    if "readonly" in text or "unable to open" in text:
        if not os.path.exists(path):
            return ReadOnlyError(f"{path}: the index was moved or removed; open it again")
        if os.path.exists(f"{path}-journal"):
            return ReadOnlyError(f"{path}: a write that was cut off must be undone first; open it once where it may be written")
        return ReadOnlyError(f"{path}: the index was replaced, may not be written, or its disk is full; open it again")
    if "full" in text:
        return OSError(errno.ENOSPC, "no space is left for the catalog; free some and write again", path)
    if "I/O error" in text:
        return OSError(errno.EIO, f"{text}; the last commit stands, open the index again", path)
    return CorruptIndexError(f"{path}: {text}; restore the index from a copy")


def _check_files(files: Files) -> None:
    """Refuse what SQLite must not touch. The catalog is looked at without being opened, see ``metaindex.storage.files``."""
    path = files.path(NAME)
    try:
        status = os.lstat(path)
    except OSError as error:
        raise NotAnIndexError(f"{files.root}: no index, it has no readable {NAME} ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
        raise NotAnIndexError(f"{files.root}: no index, its {NAME} is no regular file that may be read")
    if status.st_size < _HEADER_BYTES:
        raise CorruptIndexError(f"{path}: truncated to {status.st_size} bytes; restore the index from a copy")
    for suffix in ("-wal", "-shm"):
        if os.path.lexists(path + suffix):
            raise CorruptIndexError(f"{path}{suffix}: no index has this file; restore the index from a copy")
    try:
        end = files.tail(JOURNAL, len(_JOURNAL_MAGIC))
    except (FileNotFoundError, PermissionError):  # what can't be read here, SQLite can't read either
        return
    except OSError as error:
        raise CorruptIndexError(f"{files.path(JOURNAL)}: it can't be a journal ({error.strerror}); move it away") from None
    if end == _JOURNAL_MAGIC:
        # A journal ends so when it names another file, which SQLite would then read or unlink, wherever it is.
        raise CorruptIndexError(f"{files.path(JOURNAL)}: it names another file, no writer of an index does; move it away")
