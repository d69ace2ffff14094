"""Keeping a coarse index: built, added to, read from its file and written there. One thread at a time, beside all searches.

Building is part of writes, never of searches: a search that builds would take minutes, once, where nobody expects it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.coarse import kinds, library, upkeep
from metaindex.coarse.filled import Filled
from metaindex.coarse.spec import CoarseSpec
from metaindex.coarse.upkeep import Standing
from metaindex.coarse.vectors import VERSION, Vectors, encoded, vectors
from metaindex.errors import BackendError, CorruptIndexError, MetaIndexError
from metaindex.storage.derived import CoarseFile, CoarseRecord
from metaindex.storage.segment import Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.store import Store

_SEED = 20250918
_FAILURES = (MetaIndexError, RuntimeError, MemoryError, OSError, ValueError)


class Keeper:
    """``filled`` is what searches use, ``None`` for nothing; ``failure`` says what went wrong last. ``record`` is of the file
    that the catalog named when it was last looked at. ``trusted``: whether FAISS may read that file."""

    def __init__(self, store: Store, spec: CoarseSpec, threads: int, *, trusted: bool) -> None:
        self._store, self._spec, self._threads, self.trusted = store, spec, threads, trusted
        self.filled: Filled | None = None
        self.failure = ""
        self.record: CoarseRecord | None = None
        self._looked = -1
        self._template: Any = None
        self._ends: weakref.WeakKeyDictionary[Segment, tuple[int, int]] = weakref.WeakKeyDictionary()
        self._new_lock()
        _keepers.add(self)

    def _new_lock(self) -> None:
        self._busy = threading.Lock()

    def empty(self) -> Any:
        """An index of this kind without documents; there have to be documents in ours. Raises ValueError."""
        if self._template is None:
            dim = self._store.schema.dim
            assert dim is not None
            self._template = kinds.new(self._spec.factory, self._spec.size(dim))
        return self._template

    def vectors(self) -> Vectors:
        dim = self._store.schema.dim
        assert dim is not None
        return vectors(self._spec, dim)

    def look(self, snapshot: Snapshot) -> Filled | None:
        """What can be used. A file that the catalog names anew since the last look is read first, if it is trusted; threads
        that come meanwhile go on with what there was."""
        if self._store.path is not None and snapshot.number != self._looked and self._busy.acquire(blocking=False):
            try:
                self._looked = snapshot.number
                self._take_file()
            except _FAILURES as error:
                self.failure = f"the file of the coarse index can't be used ({error})"
            finally:
                self._busy.release()
        return self._usable()

    def keep_up(self) -> None:
        """After a commit: do what is due. The commit stands, so a failure is no failure of it: it is kept for who asks why."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._keep_up()
        except _FAILURES as error:
            self.failure = f"the coarse index could not be kept in step ({error})"
        finally:
            self._busy.release()

    def build(self) -> None:
        """Build it now from all documents, and write it where the index is open for writing.

        Raises:
            ValueError: there are too few documents to train it on. BackendError: FAISS can't. Nothing is changed then.
        """
        with self._busy:
            snapshot = self._store.snapshot
            points = kinds.training_points(self.empty()) if len(snapshot) else 0
            if len(snapshot) < max(1, points):
                raise ValueError(
                    f"coarse: {self._spec.factory} takes {max(1, points):,} documents to be built, there are {len(snapshot):,}"
                )
            self._build(snapshot)
            if self._store.writable:
                self._write()

    @contextmanager
    def purging(self) -> Iterator[None]:
        """While the block runs nothing is built or written. What there was is forgotten at its end: it knows what is to go."""
        with self._busy:
            yield
            self.filled, self.record = None, None

    def close(self) -> None:
        """Write what the file lacks, and forget."""
        if self._busy.acquire(blocking=False):
            try:
                filled = self._usable()
                if filled is not None and self._store.writable and not self._store.closed:
                    self._write_if_worth(filled, last=True)
            except _FAILURES:
                pass  # readers go without it
            finally:
                self._busy.release()
        self.filled = None

    def unseen(self, snapshot: Snapshot) -> int:
        """How many standing documents were added after all that the index holds."""
        filled = self._usable()
        return self._added_after(snapshot, -1 if filled is None else int(filled.sequence[-1]))

    def _usable(self) -> Filled | None:
        filled = self.filled
        return filled if filled is not None and filled.usable else None

    def _keep_up(self) -> None:
        snapshot = self._store.snapshot
        if not len(snapshot):
            return
        filled, points = self._usable(), kinds.training_points(self.empty())
        if filled is None:
            record = self.record = self._store.coarse_record()
            due = upkeep.due_from_file(self._standing(snapshot, record, points))
            if due == "add":
                due = "build"
                if self.trusted and (filled := self._taken()) is not None:
                    due = upkeep.due(self._standing(snapshot, filled, points))
        else:
            due = upkeep.due(self._standing(snapshot, filled, points))
        if due == "build":
            self._build(snapshot)
            self._write()
        elif due == "add" and filled is not None:
            self._add(filled, snapshot)
            self._write_if_worth(filled, last=False)

    def _standing(self, snapshot: Snapshot, held: Filled | CoarseRecord | None, points: int) -> Standing:
        if held is None:
            return Standing(len(snapshot), 0, 0, 0, points)
        if isinstance(held, Filled):
            count, last = len(held.sequence), int(held.sequence[-1])
        else:
            count, last = held.documents, held.last
        return Standing(len(snapshot), count, len(snapshot) - self._added_after(snapshot, last), held.trained, points)

    def _added_after(self, snapshot: Snapshot, last: int) -> int:
        """How many standing documents were added after ``last``, without a pass over those of old segments."""
        count = 0
        for segment in snapshot.segments:
            if segment not in self._ends:
                self._ends[segment] = int(segment.sequence.min()), int(segment.sequence.max())
            low, high = self._ends[segment]
            if high > last:
                count += segment.rows if low > last else int(np.count_nonzero(segment.sequence > last))
        return count - int(np.count_nonzero(snapshot.sequence_at(snapshot.removed) > last))

    def _build(self, snapshot: Snapshot) -> None:
        try:
            self.filled, self.failure = self._built(snapshot), ""
        except MetaIndexError:
            raise
        except RuntimeError as error:
            raise BackendError(f"FAISS can't build {self._spec.factory}: {kinds.reason(error)}") from None

    def _built(self, snapshot: Snapshot) -> Filled:
        index, made = kinds.new(self._spec.factory, self.empty().d), self.vectors()
        rows = snapshot.order
        if not index.is_trained:
            centroids = kinds.training_points(index) // kinds.POINTS_PER_CENTROID
            size = upkeep.training_sample(len(rows), made.size, centroids)
            chosen = np.sort(np.random.default_rng(_SEED).choice(len(rows), size, replace=False))
            sample = np.concatenate(list(encoded(made, snapshot, rows[chosen])))
            with library.threads(self._threads):
                index.train(sample)
            del sample
        filled = Filled(index, trained=len(rows))
        filled.fill(encoded(made, snapshot, rows), snapshot.sequence_at(rows), self._threads)
        return filled

    def _add(self, filled: Filled, snapshot: Snapshot) -> None:
        rows = filled.places(snapshot).unseen
        sequence = snapshot.sequence_at(rows)
        later = np.flatnonzero(sequence > filled.sequence[-1])  # others, which a repair brings back, wait for a new index
        later = later[np.argsort(sequence[later])]
        if len(later):
            found = encoded(self.vectors(), snapshot, rows[later])
            filled.add(found, sequence[later], self._threads)
            self.failure = ""

    def _write_if_worth(self, filled: Filled, *, last: bool) -> None:
        in_file = 0 if self.record is None else self.record.documents
        if upkeep.worth_writing(len(filled.sequence), in_file, last=last):
            self._write()

    def _write(self) -> None:
        filled = self.filled
        if filled is None or self._store.path is None:
            return
        faiss = library.load()
        writer = faiss.VectorIOWriter()
        faiss.write_index(filled.index, writer)
        data: NDArray[np.uint8] = faiss.rev_swig_ptr(writer.data.data(), writer.data.size())  # a view, as long as the writer is
        self.record = self._store.write_coarse(CoarseFile(filled.sequence, data), filled.trained, VERSION)
        del data, writer

    def _take_file(self) -> None:
        record = self._store.coarse_record()
        if record == self.record:
            return
        self.record = record
        if record is not None and self.trusted:
            self._taken()

    def _taken(self) -> Filled | None:
        """What the file holds, from now on in use; ``None`` where it is missing, damaged or not what it should be."""
        record = self.record
        if record is None or record.version != VERSION:
            return None
        try:
            held = self._store.read_coarse(record)
            index = _parsed(held.data)
        except (CorruptIndexError, RuntimeError, MemoryError) as error:
            self.failure = f"the file of the coarse index can't be used ({error})"
            return None
        empty = self.empty()
        # FAISS may read a more special class than its factory makes.
        same = isinstance(index, type(empty)) or isinstance(empty, type(index))
        same = same and index.d == empty.d and index.metric_type == empty.metric_type
        if not same or index.ntotal != len(held.sequence) or not index.is_trained:
            self.failure = "the file of the coarse index holds another index"
            return None
        self.filled, self.failure = Filled(index, held.sequence, record.trained), ""
        return self.filled


def _parsed(data: NDArray[np.uint8]) -> Any:
    """FAISS's index from bytes in memory, which were compared with their checksum. Raises RuntimeError."""
    faiss, at = library.load(), 0

    def read(count: int) -> bytes:
        nonlocal at
        piece = data[at : at + count].tobytes()
        at += len(piece)
        return piece

    reader = faiss.PyCallbackIOReader(read)
    return faiss.read_index(reader)


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _forget_threads() -> None:
    for keeper in list(_keepers):
        keeper._new_lock()


os.register_at_fork(after_in_child=_forget_threads)
