"""The catalog: one SQLite database that says what the index holds. A change is made when its transaction commits."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import ClosedError, CorruptIndexError, MetaIndexError, NotAnIndexError, UnsupportedFormatError
from metaindex.storage.database import NAME, checksum, connect, translated
from metaindex.storage.files import Files, Written
from metaindex.storage.schema import FORMAT_VERSION, Schema
from metaindex.storage.where import expression, literal

APPLICATION_ID = 0x4D544958  # "MTIX"
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE segments (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL, created INTEGER NOT NULL)",
    "CREATE TABLE levels (segment INTEGER NOT NULL, level INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL, PRIMARY KEY (segment, level)) WITHOUT ROWID",
    "CREATE TABLE documents (sequence INTEGER PRIMARY KEY, id NOT NULL, created INTEGER NOT NULL, removed INTEGER, "
    "checksum INTEGER NOT NULL)",
    "CREATE INDEX documents_removed ON documents (removed) WHERE removed IS NOT NULL",
    "CREATE TABLE metadata (sequence INTEGER NOT NULL, fields TEXT NOT NULL, created INTEGER NOT NULL, removed INTEGER, "
    "checksum INTEGER NOT NULL, PRIMARY KEY (sequence, created))",
    "CREATE TABLE fields (name TEXT PRIMARY KEY) WITHOUT ROWID",
)
_VISIBLE = "created <= ? AND (removed IS NULL OR removed > ?)"
_IN_ONE_QUERY = 500
_SEGMENTS_MAX = 10**12
_COUNTS_MAX = 1 << 62  # room to count on without leaving 64 bits


class LevelRecord(NamedTuple):
    """The file of one level: how many documents reach it, its size and checksum."""

    rows: int
    file: Written


class SegmentRecord(NamedTuple):
    """The files of a segment: ``documents`` and one per level, from level 0 on."""

    number: int
    rows: int
    documents: Written
    levels: tuple[LevelRecord, ...]


class Counters(NamedTuple):
    """The last commit, and the numbers to give out next."""

    commit: int = 0
    next_segment: int = 0
    next_sequence: int = 0
    next_id: int = 0


class State(NamedTuple):
    """What stood after one commit. ``removed`` int64: the sequence numbers of documents that are gone, rising."""

    schema: Schema
    counters: Counters
    segments: tuple[SegmentRecord, ...]
    removed: NDArray[np.int64]


class Catalog:
    """The connection to the database; any thread may use it. ``files`` is ``None`` for an index in memory."""

    def __init__(self, files: Files | None, *, writable: bool, new: bool = False) -> None:
        self._files = files
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = connect(files, writable=writable, new=new)
        _catalogs.add(self)
        if not new:
            try:
                self._check_identity()
            except BaseException:
                self.close()
                raise

    @classmethod
    def create(cls, files: Files | None, schema: Schema) -> Catalog:
        """A new catalog in an empty folder, or in memory."""
        catalog = cls(files, writable=True, new=True)
        catalog._run(f"PRAGMA application_id = {APPLICATION_ID}")
        catalog._run(f"PRAGMA user_version = {FORMAT_VERSION}")
        if schema.fields:  # see database.connect; what is in this file, this process puts there
            catalog._run("PRAGMA trusted_schema = ON")
        with catalog.transaction():
            for sql in (*_TABLES, *_indexes(schema)):
                catalog._run(sql)
            catalog.put(schema, Counters())
        return catalog

    @classmethod
    def open(cls, files: Files, *, writable: bool) -> Catalog:
        """The catalog of an index folder.

        Raises:
            NotAnIndexError: there is none, or it is another application's.
            UnsupportedFormatError: another version wrote it.
            CorruptIndexError: it is damaged.
        """
        catalog = cls(files, writable=writable)
        try:
            found = {sql for (sql,) in catalog._run("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            # Nothing else can hide in it: no view, no trigger, no other expression.
            if not found.issuperset(_TABLES) or found != {*_TABLES, *_indexes(catalog._schema())}:
                raise CorruptIndexError(f"{files.path(NAME)}: its tables are not those of an index; restore it from a copy")
        except BaseException:
            catalog.close()
            raise
        return catalog

    def _check_identity(self) -> None:
        assert self._files is not None
        root = self._files.root
        ((application,),), ((version,),) = self._run("PRAGMA application_id"), self._run("PRAGMA user_version")
        if application != APPLICATION_ID:
            raise NotAnIndexError(f"{root}: no index, its {NAME} belongs to another application ({application:#x})")
        if version != FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"{root}: written in format {version}, this version reads format {FORMAT_VERSION}; "
                f"{'upgrade metaindex' if version > FORMAT_VERSION else 'open it with the version that wrote it'}"
            )
        if self._run("PRAGMA journal_mode") == [("wal",)]:
            raise CorruptIndexError(f"{root}: its {NAME} is in WAL mode, which no index is; restore it from a copy")

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._usable() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _usable(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if os.getpid() != self._process:
                if self._files is not None and self._connection is not None:  # SQLite's files must not be shared
                    self._connection = connect(self._files, writable=False)
                self._process = os.getpid()
            if self._connection is None:
                raise ClosedError("the index is closed; open it again")
            try:
                yield self._connection
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise translated(error, self.path) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is committed at its end, or nothing is."""
        try:
            self._run("BEGIN IMMEDIATE")
            yield
            self._run("COMMIT")
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self.roll_back()
            raise

    def roll_back(self) -> None:
        """Undo what is not committed. In a forked child there is nothing: the transaction is its parent's."""
        with self._usable() as connection:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def read_only(self) -> None:
        """Go on over a new connection that only reads. Closing the old one ends whatever it could not undo."""
        with self._lock:
            if self._files is not None and self._connection is not None:
                fresh = connect(self._files, writable=False)
                self._connection.close()
                self._connection = fresh

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def state(self) -> State:
        """The last commit, read as a whole."""
        with self._usable() as connection:
            inside = connection.in_transaction
            try:
                if not inside:
                    connection.execute("BEGIN")
                return self._state()
            finally:
                if not inside and connection.in_transaction:
                    connection.execute("COMMIT")

    def _state(self) -> State:
        meta = dict(self._run("SELECT key, value FROM meta"))
        try:
            if meta["checksum"] != str(self._state_checksum()):
                raise ValueError("the checksum over all records is wrong")
            schema = Schema.from_json(meta["schema"])
            counters = Counters(
                *(_count(int(meta[name]), 1 << 63 if name == "next_id" else _COUNTS_MAX) for name in Counters._fields)
            )
            levels: dict[int, list[LevelRecord]] = {}
            sql = "SELECT segment, level, rows, bytes, checksum FROM levels ORDER BY segment, level"
            for segment, level, *numbers in self._run(sql):
                rows, size, checksum = map(_count, numbers)
                if level != len(levels.setdefault(segment, [])):
                    raise ValueError(f"level {level} of segment {segment}")
                levels[segment].append(LevelRecord(rows, Written(size, checksum)))
            segments = []
            for row in self._run("SELECT number, rows, bytes, checksum, created FROM segments ORDER BY number"):
                number, rows, size, checksum, created = map(_count, row)
                if number >= counters.next_segment or number >= _SEGMENTS_MAX or created > counters.commit:
                    raise ValueError(f"segment {number}")
                segments.append(SegmentRecord(number, rows, Written(size, checksum), tuple(levels.get(number, ()))))
            gone = self._run("SELECT sequence FROM documents WHERE removed IS NOT NULL")
            removed = [_count(sequence) for (sequence,) in gone]
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptIndexError(f"{NAME}: a record is damaged ({error!r}); restore the index from a copy") from None
        return State(schema, counters, tuple(segments), np.sort(np.array(removed, dtype=np.int64)))

    def commit_number(self) -> int:
        return int(self._run("SELECT value FROM meta WHERE key = 'commit'")[0][0])

    def put(self, schema: Schema, counters: Counters) -> None:
        values = [("schema", schema.to_json()), *zip(Counters._fields, map(str, counters))]
        with self._usable() as connection:
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
        self._run("INSERT OR REPLACE INTO meta VALUES ('checksum', ?)", (str(self._state_checksum()),))

    def _schema(self) -> Schema:
        found = self._run("SELECT value FROM meta WHERE key = 'schema'")
        return Schema.from_json(found[0][0] if found else "")

    def _state_checksum(self) -> int:
        """Over every row that says what the index is; documents and metadata have one for each row."""
        tables = (
            "meta WHERE key <> 'checksum' ORDER BY key",
            "segments ORDER BY 1",
            "levels ORDER BY 1, 2",
            "fields ORDER BY 1",
        )
        return checksum([self._run(f"SELECT * FROM {rows}") for rows in tables])

    def coarse(self) -> str | None:
        """What stands of the coarse index's file, see ``metaindex.storage.derived``."""
        found = self._run("SELECT value FROM meta WHERE key = 'coarse'")
        return None if not found else str(found[0][0])

    def put_coarse(self, text: str | None) -> None:
        """Replace it; ``put`` has to follow, which makes the checksum right."""
        if text is None:
            self._run("DELETE FROM meta WHERE key = 'coarse'")
        else:
            self._run("INSERT OR REPLACE INTO meta VALUES ('coarse', ?)", (text,))

    def add_segment(self, record: SegmentRecord, commit: int) -> None:
        values = (record.number, record.rows, *record.documents, commit)
        self._run("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", values)
        for level, (rows, file) in enumerate(record.levels):
            self._run("INSERT INTO levels VALUES (?, ?, ?, ?, ?)", (record.number, level, rows, *file))

    def drop_segments(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._run("DELETE FROM segments WHERE number = ?", (number,))
            self._run("DELETE FROM levels WHERE segment = ?", (number,))

    def add_documents(self, sequence: Iterable[int], ids: Iterable[int | str], commit: int) -> None:
        rows = ((number, id_, commit) for number, id_ in zip(sequence, ids))
        with self._usable() as connection:
            connection.executemany("INSERT INTO documents VALUES (?1, ?2, ?3, NULL, row_checksum(?1, ?2, ?3, NULL))", rows)

    def remove_documents(self, sequence: Iterable[int], commit: int) -> None:
        rows = ((commit, number) for number in sequence)
        with self._usable() as connection:
            connection.executemany(
                "UPDATE documents SET removed = ?1, checksum = row_checksum(sequence, id, created, ?1) WHERE sequence = ?2",
                rows,
            )

    def add_metadata(self, fields: Iterable[tuple[int, str]], commit: int) -> None:
        """``fields``: sequence numbers and JSON texts."""
        rows = ((number, text, commit) for number, text in fields)
        with self._usable() as connection:
            connection.executemany("INSERT INTO metadata VALUES (?1, ?2, ?3, NULL, row_checksum(?1, ?2, ?3, NULL))", rows)

    def end_metadata(self, sequence: Iterable[int], commit: int) -> None:
        """From ``commit`` on these documents have no metadata; what this very commit added, no snapshot shows."""
        rows = [(commit, number) for number in sequence]
        with self._usable() as connection:
            connection.executemany("DELETE FROM metadata WHERE created = ?1 AND sequence = ?2", rows)
            connection.executemany(
                "UPDATE metadata SET removed = ?1, checksum = row_checksum(sequence, fields, created, ?1) "
                "WHERE sequence = ?2 AND removed IS NULL",
                rows,
            )

    def add_fields(self, names: Iterable[str]) -> None:
        """Take down names of metadata fields, for the list of what can be filtered by."""
        with self._usable() as connection:
            connection.executemany("INSERT OR IGNORE INTO fields VALUES (?)", [(name,) for name in names])

    @property
    def in_transaction(self) -> bool:
        with self._usable() as connection:
            return connection.in_transaction

    def fields(self) -> list[str]:
        """Every name of a metadata field that was ever used."""
        return [name for (name,) in self._run("SELECT name FROM fields ORDER BY name")]

    def matching(self, sql: str, values: Sequence[Any]) -> NDArray[np.int64]:
        """The sequence numbers that a query of ``metaindex.storage.where`` finds, rising."""
        found = self._run(sql, values)
        return np.sort(np.fromiter((number for (number,) in found), np.int64, len(found)))

    def metadata(self, sequence: Sequence[int], commit: int) -> dict[int, str]:
        """The JSON texts that stood at ``commit``, by sequence number; documents without metadata are left out."""
        if not self._run("SELECT 1 FROM metadata LIMIT 1"):
            return {}
        found: dict[int, str] = {}
        for start in range(0, len(sequence), _IN_ONE_QUERY):
            asked = sequence[start : start + _IN_ONE_QUERY]
            places = ",".join("?" * len(asked))
            sql = f"SELECT sequence, fields FROM metadata WHERE sequence IN ({places}) AND {_VISIBLE}"
            found.update(self._run(sql, (*asked, commit, commit)))
        return found

    def removed_by(self, id_: int | str, commit: int) -> int | None:
        """The last commit, up to ``commit``, that removed a document of that id; ``None`` where the catalog knows of none."""
        sql = "SELECT MAX(removed) FROM documents WHERE removed IS NOT NULL AND removed <= ? AND id = ?"
        number: int | None = self._run(sql, (commit, id_))[0][0]
        return number

    def drop_history(self, oldest: int) -> int:
        """Forget what no snapshot from commit ``oldest`` on can see, and count it. No segment may hold a document that goes."""
        gone = (
            "metadata WHERE removed <= ?1",
            "metadata WHERE sequence IN (SELECT sequence FROM documents WHERE removed <= ?1)",
            "documents WHERE removed <= ?1",
        )
        with self._usable() as connection:
            return sum(connection.execute(f"DELETE FROM {rows}", (oldest,)).rowcount for rows in gone)

    def drop_unused_fields(self) -> None:
        """Forget names of metadata fields that no document has any more."""
        self._run("DELETE FROM fields WHERE name NOT IN (SELECT key FROM metadata, json_each(metadata.fields))")

    def erase(self) -> None:
        """Write the file anew, so that nothing of what was deleted is left in it. Outside of transactions only."""
        self._run("PRAGMA secure_delete = ON")
        self._run("PRAGMA cache_spill = ON")  # nobody reads meanwhile, so it need not all be in memory
        try:
            self._run("VACUUM")
        finally:
            with suppress(OSError, MetaIndexError):
                self._run("PRAGMA cache_spill = OFF")

    def copy_to(self, files: Files) -> None:
        """Copy the last commit to a new catalog in another folder."""
        target = connect(files, writable=True, new=True)
        try:
            with self._usable() as connection:
                connection.backup(target)
        finally:
            target.close()

    def document_rows(self, batch: int) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
        """All rows of documents, so many at once: sequence, id, created, removed, checksum; and a commit not before theirs."""
        sql = f"SELECT * FROM documents WHERE sequence > ? ORDER BY sequence LIMIT {batch:d}"
        last = -1 << 63
        while rows := self._run(sql, (last,)):
            yield rows, self.commit_number()
            last = rows[-1][0]

    def metadata_rows(self, batch: int) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
        """All rows of metadata, as ``document_rows``: sequence, text, created, removed, checksum."""
        after, values = "", tuple[Any, ...]()
        while rows := self._run(f"SELECT * FROM metadata {after} ORDER BY sequence, created LIMIT {batch:d}", values):
            yield rows, self.commit_number()
            after, values = "WHERE (sequence, created) > (?, ?)", (rows[-1][0], rows[-1][2])

    def known_documents(self, numbers: Sequence[int]) -> set[int]:
        """Those of ``numbers``, rising, that ``documents`` has."""
        if not numbers:
            return set()
        sql = "SELECT sequence FROM documents WHERE sequence BETWEEN ? AND ?"
        return {sequence for (sequence,) in self._run(sql, (numbers[0], numbers[-1]))}

    def orphans(self) -> list[tuple[int]]:
        """Segments that have levels and are not in the catalog."""
        return self._run("SELECT DISTINCT segment FROM levels WHERE segment NOT IN (SELECT number FROM segments)")

    def change(self, sql: str, rows: Iterable[Sequence[Any]] | None = None) -> None:
        """For repairs: one statement, or one for each of ``rows``; inside a transaction."""
        with self._usable() as connection:
            if rows is None:
                connection.execute(sql)
            else:
                connection.executemany(sql, rows)

    def drop_field_indexes(self) -> None:
        for (name,) in self._run("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'metadata_field_%'"):
            self._run(f"DROP INDEX {name}")  # the texts were checked when the catalog was opened

    def make_field_indexes(self, schema: Schema) -> None:
        """Those of the declared fields that are missing."""
        made = {sql for (sql,) in self._run("SELECT sql FROM sqlite_master WHERE type = 'index'")}
        for sql in _indexes(schema):
            if sql not in made:
                self._run(sql)

    def tolerate_any_text(self) -> None:
        """Read text that is no UTF-8 as what no writer writes, instead of failing."""
        with self._usable() as connection:
            connection.text_factory = lambda data: data.decode(errors="surrogateescape")

    def damage(self) -> list[str]:
        """What SQLite's own check finds wrong, one line each."""
        try:
            lines = [line for (line,) in self._run("PRAGMA integrity_check(10)")]
            size = self._wrong_size()
        except CorruptIndexError as error:
            return [str(error)]
        return ([] if lines == ["ok"] else lines) + ([size] if size else [])

    def _wrong_size(self) -> str | None:
        """SQLite takes a file whose last page is cut off."""
        with self._usable() as connection:
            if self._files is None or connection.in_transaction:
                return None
            connection.execute("BEGIN")
            try:
                expected = self.nbytes  # the first read: from here on no other connection can write
                found = os.stat(self.path).st_size
            finally:
                connection.execute("COMMIT")
        return None if found == expected else f"expected {expected} bytes, found {found}"

    @property
    def path(self) -> str:
        return NAME if self._files is None else self._files.path(NAME)

    @property
    def nbytes(self) -> int:
        return int(self._run("PRAGMA page_count")[0][0]) * int(self._run("PRAGMA page_size")[0][0])


_catalogs: weakref.WeakSet[Catalog] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    # Closing a connection, as the end of the process would, ends a transaction of the parent and deletes its journal.
    for catalog in list(_catalogs):
        catalog._lock = threading.RLock()  # a thread that did not survive the fork may hold the old one
        if catalog._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(catalog._connection))


os.register_at_fork(after_in_child=_leave_to_the_parent)


def _indexes(schema: Schema) -> tuple[str, ...]:
    """One for each declared field. Only names that the schema has checked come into the text of SQL.

    Each has all that a filter reads, and ``metadata`` has rowids: SQLite puts off to read rows of such a table until it needs
    them, which a filter by declared fields never does. WITHOUT ROWID it would look up each.
    """
    return tuple(
        f"CREATE INDEX metadata_field_{number} ON metadata ({expression(literal(name))}, removed, created, sequence)"
        for number, name in enumerate(schema.fields)
    )


def _count(value: Any, most: int = _COUNTS_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"expected a count of at most {most}, got {value!r}")
    return value
