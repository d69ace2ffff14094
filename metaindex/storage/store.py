"""``Store``: documents in segments, a catalog that says which, and the snapshots that searches run on."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import (
    ClosedError,
    CorruptIndexError,
    FilterError,
    ForkedProcessError,
    IndexLockedError,
    MetaIndexError,
    ReadOnlyError,
)
from metaindex.storage import derived, folder
from metaindex.storage.cache import VectorMemory
from metaindex.storage.catalog import Catalog, Counters, State
from metaindex.storage.copy import copy
from metaindex.storage.derived import CoarseFile, CoarseRecord
from metaindex.storage.files import Files, Lock
from metaindex.storage.ids import Ids, as_array
from metaindex.storage.merge import Held
from metaindex.storage.pack import Encode, encode
from metaindex.storage.place import READERS, FolderPlace, MemoryPlace, Place, segment_name
from metaindex.storage.schema import Schema
from metaindex.storage.segment import Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.transaction import Current, Transaction
from metaindex.storage.verify import Inspection, Verification
from metaindex.storage.where import Condition, fields, query

__all__ = ["Store", "Transaction"]

_FEW_LOOKUPS = 256
_FEW_FIELDS = 20


class Store:
    """Documents on disk (``path``) or in memory. Any number of threads may read beside one that writes."""

    def __init__(
        self, current: Current, catalog: Catalog, place: Place, encode: Encode, memory_limit: int | None = None
    ) -> None:
        # Only for vectors that live in memory; those on disk are limited by their place.
        self._memory_limit = memory_limit
        self.path: str | None = None
        self.writable = True
        self._why_not = ""
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._current: Current | None = None
        self._stand(current)
        self._catalog, self._place, self._encode = catalog, place, encode
        self._locks: list[Lock] = []
        self._files: Files | None = None
        self._writing = threading.Lock()
        self._purging = threading.Lock()
        self._writer: int | None = None
        self._process = os.getpid()
        self._inherited: dict[int, tuple[Lock, int]] = {}

    @classmethod
    def create(
        cls,
        schema: Schema,
        path: str | os.PathLike[str] | None = None,
        *,
        files: type[Files] = Files,
        encode: Encode = encode,
        memory_limit: int | None = None,
    ) -> Store:
        """A new, empty store: in memory, or in a folder that is created at ``path``. ``memory_limit``: see ``open``; in memory
        it is what all vectors may take.

        Raises:
            FileExistsError: something stands at ``path``.
        """
        if path is None:
            current, catalog = Current.of(schema, Counters(), ()), Catalog.create(None, schema)
            return cls(current, catalog, MemoryPlace(), encode, memory_limit)
        with folder.staged(path, files) as staging:
            Catalog.create(staging, schema).close()
        return cls.open(path, "r+", files=files, encode=encode, memory_limit=memory_limit)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Literal["r", "r+"] | str = "r",
        *,
        verify: bool = False,
        files: type[Files] = Files,
        encode: Encode = encode,
        memory_limit: int | None = None,
    ) -> Store:
        """The store at ``path``, for reading or for writing. Sizes and headers are checked, with ``verify`` checksums too.

        ``memory_limit``: the bytes of vectors that may be in memory; files are read then, not mapped.

        Raises:
            FileNotFoundError, NotADirectoryError, NotAnIndexError, UnsupportedFormatError: there is nothing to open.
            CorruptIndexError: a file is missing, truncated or changed.
            IndexLockedError: another writer has it.
        """
        if mode not in ("r", "r+"):
            raise ValueError(f"mode: expected 'r' or 'r+', got {mode!r}")
        # The lock comes before the first look into the catalog: what a snapshot names stays while it is held.
        opened, lock = folder.locked(path, files, writable=mode == "r+")
        try:
            catalog = Catalog.open(opened, writable=mode == "r+")
            try:
                memory = None if memory_limit is None else VectorMemory(memory_limit)
                state, place = catalog.state(), FolderPlace(opened, memory)
                if verify:
                    inspection = Inspection(opened, catalog, state.schema, state.counters)
                    inspection.look(state.segments, place)
                    if inspection.damage:
                        raise CorruptIndexError(f"{opened.root}: {inspection.damage[0]}; restore it from a copy, or repair it")
                if mode == "r+":
                    place.clean((record.number for record in state.segments), state.counters.next_segment)
                    if state.schema.coarse is not None:
                        with suppress(OSError):
                            place.remove_coarse(CoarseRecord.from_json(catalog.coarse()))
                store = cls(_current(state, place, {}), catalog, place, encode)
            except BaseException:
                catalog.close()
                raise
        except BaseException:
            lock.release()
            raise
        store.path, store.writable, store._files, store._locks = opened.root, mode == "r+", opened, [lock]
        return store

    @property
    def schema(self) -> Schema:
        return self._now().schema

    @property
    def snapshot(self) -> Snapshot:
        """What stands now. A search takes it once and runs on it to its end."""
        return self._now().snapshot

    @property
    def closed(self) -> bool:
        return self._current is None

    @property
    def files(self) -> Files | None:
        """The files of a store on disk, with counts of the bytes that were mapped and read."""
        return self._files

    def _now(self) -> Current:
        current = self._current
        if current is None:
            raise ClosedError("the index is closed; open it again")
        return current

    def refresh(self) -> None:
        """See what other processes have committed; a writer sees its own commits as they happen."""
        self._now()
        if self.writable or self._files is None:
            return
        self._check_process()
        with self._writing:  # or a slow refresh would undo a later one, or a close
            current = self._now()
            if self._catalog.commit_number() == current.counters.commit:
                return
            assert isinstance(self._place, FolderPlace)
            open_already = {held.segment.name: held.segment for held in current.held}
            self._stand(_current(self._catalog.state(), self._place, open_already))

    def _stand(self, current: Current) -> None:
        self._snapshots.add(current.snapshot)
        self._current = current

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that become visible, and durable, together at the end of the block; an exception undoes them all.

        Raises:
            ClosedError, ReadOnlyError, ForkedProcessError: this handle can't write.
        """
        self._check_writable()
        self._refuse_inside_a_write()
        with self._writing:
            before = after = self._now()
            transaction = Transaction(before, self._catalog, self._place, self._encode, self._memory_limit)
            try:
                self._writer = threading.get_ident()
                with self._catalog.transaction():
                    yield transaction
                    self._check_process()
                    after = transaction.commit()
                self._stand(after)
            except BaseException as error:
                if os.getpid() == self._process:
                    self._settle(error, transaction, before, after)
                raise
            finally:
                self._writer = None
            transaction.retire_replaced()
            transaction.end()

    def _settle(self, error: BaseException, transaction: Transaction, before: Current, after: Current) -> None:
        """After a failure, which nothing that fails in here may hide. Whether a commit was made only the catalog knows."""
        committing, committed, why = after is not before, False, ""
        try:
            self._catalog.roll_back()
            committed = committing and self._catalog.commit_number() == after.counters.commit
        except (OSError, MetaIndexError) as unclear:
            why = f"whether the last write was committed is unknown ({unclear})" if committing else f"no write ends ({unclear})"
        if committed:
            self._stand(after)
        elif not (committing and why):  # else the catalog may name what is staged
            with suppress(OSError):
                transaction.roll_back()
        if why or self._place.failed_sync or (committing and _is_io_error(error)):
            self._write_no_more(why or f"a sync failed ({error}), and what it left unwritten no later sync can save")

    def _write_no_more(self, why: str) -> None:
        self.writable, self._why_not = False, why
        with suppress(OSError, MetaIndexError):
            self._catalog.read_only()

    def _refuse_inside_a_write(self) -> None:
        if self._writing.locked() and self._writer == threading.get_ident():
            raise RuntimeError("this thread is writing already; let that write end first; an iterator must not write or close")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ForkedProcessError("this process was forked from the one that opened the index; open it here to go on")

    def _check_inherited(self, snapshot: Snapshot) -> None:
        """In a forked child, see that the catalog still has all of ``snapshot``, and that it stays from here on.

        A child has none of its parent's locks, so it takes one of its own. Before that a compaction may have dropped anything
        but the last commit.
        """
        if self._files is None or (process := os.getpid()) == self._process:
            return
        commit = None
        with suppress(FileNotFoundError):  # another index was saved there
            if process not in self._inherited:
                lock = folder.lock_for_reading(self._files)
                self._inherited.setdefault(process, (lock, self._catalog.commit_number()))
            if self._files.stands_at(self._files.root):
                _, commit = self._inherited[process]
        if commit is None or snapshot.number < commit:
            raise ForkedProcessError(
                f"{self.path}: it was written to after this process was forked from the one that opened it, and before this "
                "process first asked for metadata, which may be gone; open the index here to go on"
            )

    def _check_writable(self) -> None:
        self._now()
        self._check_process()
        if self._why_not:
            raise ReadOnlyError(f"{self.path}: it takes no more writes: {self._why_not}; close it and open the index again")
        if not self.writable:
            raise ReadOnlyError("the index was opened for reading; open it with mode='r+' to write")

    def locate(self, snapshot: Snapshot, ids: Ids) -> NDArray[np.int64]:
        """The row in ``snapshot`` of each id, -1 where no document of that id stands."""
        ids = as_array(ids)
        if "id_lookup" in vars(snapshot) or len(ids) * len(snapshot.segments) > _FEW_LOOKUPS or len(snapshot.segments) == 1:
            return snapshot.id_lookup.find(ids)
        # A few ids don't pay for a lookup over all rows, which each commit would make anew.
        rows = np.full(len(ids), -1)
        for first, segment in zip(snapshot.first_rows, snapshot.segments):
            found = segment.id_lookup.find(ids)
            here = found >= 0
            found[here] += first
            here[here] = ~np.isin(found[here], snapshot.removed)
            rows[here] = found[here]
        return rows

    def metadata(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> list[dict[str, Any] | None]:
        """The metadata of rows, ``None`` for documents without."""
        self._now()
        self._check_inherited(snapshot)
        sequence = snapshot.sequence_at(np.asarray(rows, np.int64)).tolist()
        texts = self._catalog.metadata(sequence, snapshot.number)
        try:
            return [json.loads(str(texts[number])) if number in texts else None for number in sequence]
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptIndexError(
                f"catalog.sqlite: metadata is no JSON ({error}); restore it from a copy, or repair it"
            ) from None

    def removed_by(self, snapshot: Snapshot, id_: int | str) -> int | None:
        """The commit that removed the document of that id, as ``snapshot`` knows it; ``None`` where none was, or since a
        compaction forgot it. Takes time for every removed document."""
        self._now()
        self._check_inherited(snapshot)
        return self._catalog.removed_by(id_, snapshot.number)

    def matching(self, snapshot: Snapshot, condition: Condition) -> NDArray[np.int64]:
        """The rows, rising, of the documents in ``snapshot`` whose metadata meet ``condition``; not to be written to.

        Raises:
            FilterError: it names a field that no document ever had, while others are there.
        """
        schema = self._now().schema
        self._check_inherited(snapshot)
        asked = query(condition, schema.fields)
        rows = snapshot.matches.get(asked)
        if rows is None:
            self._check_fields(fields(condition), schema)
            rows = snapshot.rows_of(self._catalog.matching(asked.sql, (snapshot.number, *asked.values)))
            if asked.excludes:
                others = np.ones(snapshot.rows, bool) if snapshot.alive is None else snapshot.alive.copy()
                others[rows] = False
                rows = np.flatnonzero(others)
            rows.flags.writeable = False
            snapshot.matches.put(asked, rows)
        return rows

    def _check_fields(self, asked: set[str], schema: Schema) -> None:
        used = self._catalog.fields()
        known = sorted({*used, *schema.fields})
        if used and (unknown := sorted(asked.difference(known))):
            listed = ", ".join(map(repr, known[:_FEW_FIELDS])) + (", ..." if len(known) > _FEW_FIELDS else "")
            raise FilterError(f"filter: no document has a field {unknown[0]!r}; fields are {listed}")

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write what stands now to a new folder, without removed documents and in few segments.

        ``overwrite=True`` replaces an index at ``path``, and never anything else.

        Raises:
            FileExistsError: something stands at ``path``, and ``overwrite`` is False.
            NotAnIndexError: what stands there is no index.
            IndexLockedError: a writer has it.
            ValueError: ``path`` is this index's own folder.
        """
        current = self._now()
        if self.path is not None and os.path.exists(path) and os.path.samefile(self.path, path):
            raise ValueError(f"path: {os.fspath(path)!r} is this index's own folder; save to another one")
        self._check_inherited(current.snapshot)
        folder.save(current, self._catalog, path, overwrite=overwrite, files=type(self._files) if self._files else Files)

    def compact(self, *, purge: bool = False) -> None:
        """Write segments that hold removed documents anew without them, merge small ones, forget what no snapshot can see.

        What a snapshot of this process may still see is kept, and all history while another handle reads the index. With
        ``purge`` no file of the index holds a byte of what was removed when this returns.

        Raises:
            IndexLockedError: ``purge``, and another handle reads the index, or this process uses an older snapshot; nothing is
                changed then. Or, under a memory limit, searches that began before it ended go on for long: what was removed
                is compacted then, but not purged.
        """
        self._check_writable()
        self._refuse_inside_a_write()
        if not purge:
            with self.transaction() as transaction:
                self._compact(transaction)
            return
        with self._purging, self._place.alone(long=True) as alone:
            if not alone:
                raise IndexLockedError(f"{self.path}: {self._readers()}; what they see can't be purged; close them first")
            with self.transaction() as transaction:
                self._refuse_older_snapshots()
                self._compact(transaction)
                transaction.drop_unused_fields()
                if self.schema.coarse is not None:
                    transaction.put_coarse(None)
            with self._writing:
                named = [int(held.segment.name) for held in self._now().held]
                try:
                    self._place.purge(named)
                    self._catalog.erase()
                except OSError as error:
                    if self._place.failed_sync or _is_io_error(error):
                        self._write_no_more(f"a sync failed ({error}) while it was purged; purge it again")
                    raise

    def _compact(self, transaction: Transaction) -> None:
        transaction.compact(folder.SAVED_SEGMENT_BYTES)
        # Who opens the index from here on sees the last commit, and so nothing of what goes: a moment alone is enough.
        with self._place.alone() as alone:
            if alone:
                transaction.drop_history(min(snapshot.number for snapshot in self._snapshots))

    def _readers(self) -> str:
        holders = set() if self._files is None else self._files.holders(READERS)
        named = [f"process {one}" if one != os.getpid() else f"a handle of this process ({one})" for one in sorted(holders)]
        return f"it is read by {', '.join(named)}" if named else "others read it"

    def _refuse_older_snapshots(self) -> None:
        last = self._now().counters.commit
        if any(snapshot.number < last for snapshot in self._snapshots):
            gc.collect()
        if older := sorted(snapshot.number for snapshot in self._snapshots if snapshot.number < last):
            raise IndexLockedError(
                f"{self.path or 'the index'}: this process uses {len(older)} older snapshots (commit {older[0]} of {last}), "
                "which may see what is to be purged; let its searches end first"
            )

    def snapshot_to(self, path: str | os.PathLike[str]) -> None:
        """Copy the last commit to a new folder. Segments become hard links where the system can, and are copied elsewhere.

        A purge of this index later does not reach the copy. In memory this is ``save``.

        Raises:
            FileExistsError: something stands at ``path``.
        """
        self._now()
        if self._files is None:
            self.save(path)
        else:
            copy(self._files, path)

    def coarse_record(self) -> CoarseRecord | None:
        """What the catalog says of the coarse index's file; in memory there is none."""
        self._now()
        return None if self._files is None else CoarseRecord.from_json(self._catalog.coarse())

    def read_coarse(self, record: CoarseRecord) -> CoarseFile:
        """The coarse index's file. Raises CorruptIndexError where it is missing or is not the one the record means."""
        assert self._files is not None
        return derived.read(self._files, record)

    def write_coarse(self, held: CoarseFile, trained: int, version: int) -> CoarseRecord | None:
        """Put a new file in place of the coarse index's, by a commit of its own; see ``CoarseRecord``. In memory do nothing.

        Only one thread at a time may. Raises as ``transaction``, and OSError.
        """
        self._check_writable()
        if self._files is None:
            return None
        before = self.coarse_record()
        number = 0 if before is None else before.number + 1
        written = derived.write(self._files, number, held)
        record = CoarseRecord(number, written, len(held.sequence), int(held.sequence[-1]), trained, version)
        with self.transaction() as transaction:  # a file that this leaves unnamed the next writer removes
            transaction.put_coarse(record.to_json())
        with suppress(OSError):
            derived.remove_others(self._files, record)
        return record

    def verify(self) -> Verification:
        """Read all that stands now, and say what of it no writer wrote. Damage is never raised; writers go on meanwhile."""
        current = self._now()
        inspection = Inspection(self._files, self._catalog, current.schema, current.counters)
        if self._files is None:
            inspection.look(current.snapshot.segments, None)
        else:
            assert isinstance(self._place, FolderPlace)
            self._check_process()
            records = [self._place.record(segment) for segment in current.snapshot.segments]
            # This handle's own connection may be in the middle of a write.
            catalog = Catalog.open(self._files, writable=False) if self.writable else self._catalog
            try:
                inspection = Inspection(self._files, catalog, current.schema, current.counters)
                inspection.look(records, self._place)
            finally:
                if catalog is not self._catalog:
                    catalog.close()
        return inspection.result(len(current.snapshot), len(current.snapshot.segments))

    def memory(self) -> dict[str, Any]:
        """Bytes held: per level and place ("ram", "disk"), per-document arrays, and the catalog apart.

        Under a memory limit "ram" is what is kept of a level on "disk", and the arrays of documents are in memory.
        """
        current = self._now()
        where, memory = "ram" if self._files is None else "disk", self._place.memory
        levels = []
        for level in range(len(current.schema.levels)):
            inside = [segment for segment in current.snapshot.segments if level < len(segment.levels)]
            held = [copy[level] for segment in inside for copy in segment.copies]
            places = dict.fromkeys(("ram", "disk"), 0)
            places[where] = sum(one.nbytes for one in held)
            if memory is not None:
                places["ram"] = sum(map(memory.kept, held))
            tokens = (current.schema.levels.start(level), current.schema.levels.stop(level))
            codecs = "+".join(kind.name for kind in current.schema.kept_in(level))
            rows = sum(segment.levels[level].rows for segment in inside)
            levels.append({"level": level, "tokens": tokens, "codec": codecs, "rows": rows, **places})
        documents = {"ram": _lookup_bytes(current.snapshot), "disk": 0}
        documents["ram" if memory is not None else where] += sum(map(_document_bytes, current.snapshot.segments))
        return {"levels": levels, "documents": documents, "catalog": self._catalog.nbytes}

    def close(self) -> None:
        """Let go of the folder and its lock. A search that is under way ends on its snapshot, whose files stay until then."""
        if os.getpid() != self._process:  # the parent's lock and connection are not this process's to close
            self._current = None
            self._inherited.clear()
            return
        self._refuse_inside_a_write()
        with self._writing:
            self._current = None
            self._lock_for_snapshots()
            self._catalog.close()
            for lock in self._locks:
                lock.release()

    def _lock_for_snapshots(self) -> None:
        """While a snapshot is still in use, whoever writes next keeps the segments that it may not have mapped yet."""
        if self._files is None or not (alive := list(self._snapshots)):
            return
        with suppress(OSError):  # without a lock, a search whose files are gone says so
            lock = self._files.lock(READERS, shared=True)
            for snapshot in alive:
                weakref.finalize(snapshot, _let_go, lock)


def _let_go(lock: Lock) -> None:
    """Nothing: the kernel drops a lock when the last snapshot that holds it is gone."""


def _is_io_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EIO


def _current(state: State, place: FolderPlace, known: dict[str, Segment]) -> Current:
    held = []
    for record in state.segments:
        segment = known.get(segment_name(record.number)) or place.open(record, state.schema)
        gone = np.empty(0, np.int64)
        if len(state.removed):
            gone = np.flatnonzero(np.isin(segment.sequence, state.removed))
        held.append(Held(segment, gone))
    return Current.of(state.schema, state.counters, held)


def _lookup_bytes(snapshot: Snapshot) -> int:
    """What the lookups take that were made so far."""
    held = (snapshot, *snapshot.segments)
    made = [vars(one)[name] for one in held for name in ("id_lookup", "sequence_lookup", "matches") if name in vars(one)]
    return sum({id(lookup): lookup.nbytes for lookup in made}.values())


def _document_bytes(segment: Segment) -> int:
    shared = 0 if segment.ids is segment.sequence else segment.ids.nbytes
    return segment.lengths.nbytes + segment.sequence.nbytes + shared
