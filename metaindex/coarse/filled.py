"""A FAISS index filled with documents, found again in any snapshot."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property
from metaindex.coarse import kinds, library
from metaindex.coarse.gpu import GpuCopy
from metaindex.coarse.locks import SharedLock
from metaindex.errors import BackendError
from metaindex.storage.segment import Segment
from metaindex.storage.snapshot import Snapshot

_BATCH_SECONDS = 0.02  # how long searches may have to wait for a batch that is added
_FIRST_BATCH = 64
_ANSWER_BYTES = 64 << 20
_HIT_BYTES = 12
_NONE = np.empty(0, np.int64)


class Places:
    """Where the documents of a filled index stand in one snapshot.

    ``rows_at`` int64 [n]: the row of the document at each position, -1 where it does not stand in the snapshot. ``unseen``
    int64, rising: the rows of standing documents that the index does not have. ``sequence`` [n]: what it had then.
    """

    def __init__(self, sequence: NDArray[np.int64], rows_at: NDArray[np.int64], unseen: NDArray[np.int64]) -> None:
        self.sequence, self.rows_at, self.unseen = sequence, rows_at, unseen

    def standing(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Which positions hold documents that stand and whose rows are ``allowed``."""
        if allowed is None:
            return self._standing
        standing = self._standing.copy()
        standing[standing] = allowed[self.rows_at[standing]]
        return standing

    @cached_property
    def _standing(self) -> NDArray[np.bool_]:
        return self.rows_at >= 0


class _Known(NamedTuple):
    """The position of each row of a segment, -1 where the index did not have it when it had ``documents``."""

    positions: NDArray[np.int32]
    documents: int
    complete: bool


class Filled:
    """``index``: FAISS's, whose positions 0, 1, 2 ... are documents in the order of addition.

    ``sequence`` int64 [n], rising: their places in the order of addition over the life of our index, which no merge changes.
    ``trained``: how many documents there were to train on. Documents that are removed later stay in it, and are passed over.
    Searches may run while documents are added: they see those that were there before, until all are in.
    """

    def __init__(self, index: Any, sequence: NDArray[np.int64] = _NONE, trained: int = 0) -> None:
        self.index, self.sequence, self.trained = index, sequence, trained
        self.defaults = kinds.parameters(index)
        self.lists, self.is_graph = kinds.lists(index), kinds.is_graph(index)
        self._lock = SharedLock()
        self._failed = False
        self._places: weakref.WeakKeyDictionary[Snapshot, Places] = weakref.WeakKeyDictionary()
        self._known: weakref.WeakKeyDictionary[Segment, _Known] = weakref.WeakKeyDictionary()

    @property
    def usable(self) -> bool:
        """Whether it is whole: an addition that failed, or was under way when the process forked, leaves it half done."""
        return not self._failed and not self._lock.cut_off

    @property
    def nbytes(self) -> int:
        return kinds.nbytes(self.index) + self.sequence.nbytes

    def fill(self, vectors: Iterable[NDArray[np.float32]], sequence: NDArray[np.int64], threads: int) -> None:
        """The first documents, before anybody searches: ``vectors`` [n, size] piece by piece, as many as ``sequence``."""
        for piece in vectors:
            with library.threads(threads):
                self.index.add(np.ascontiguousarray(piece))
        self.sequence = sequence

    def add(self, vectors: Iterable[NDArray[np.float32]], sequence: NDArray[np.int64], threads: int) -> None:
        """More documents, added later than all that are there, in batches that hold searches up for a moment each."""
        size = _FIRST_BATCH
        for piece in vectors:
            start = 0
            while start < len(piece):
                batch = np.ascontiguousarray(piece[start : start + size])
                begun = time.perf_counter()
                self._add(batch, threads)
                seconds = time.perf_counter() - begun
                start += len(batch)
                size = max(1, min(2 * size, int(len(batch) * _BATCH_SECONDS / max(seconds, 1e-9))))
        self.sequence = np.concatenate([self.sequence, sequence])

    def _add(self, batch: NDArray[np.float32], threads: int) -> None:
        with self._lock.alone(), library.threads(threads):
            try:
                self.index.add(batch)
            except BaseException:
                self._failed = True
                raise

    def on_gpu(self, device: str) -> GpuCopy:
        """A copy of what there is now. Raises RuntimeError where FAISS can't make one."""
        with self._lock.shared():
            return GpuCopy(self.index, device)

    def places(self, snapshot: Snapshot) -> Places:
        """Worked out once for each snapshot and each addition: a pass over all rows."""
        sequence = self.sequence
        found = self._places.get(snapshot)
        if found is not None and found.sequence is sequence:
            return found
        rows_at, unseen = np.full(len(sequence), -1), [_NONE]
        for first, segment in zip(snapshot.first_rows.tolist(), snapshot.segments):
            positions = self._positions(segment, sequence)
            inside = positions >= 0
            rows_at[positions[inside]] = np.flatnonzero(inside) + first
            unseen.append(np.flatnonzero(~inside) + first)
        rows = np.concatenate(unseen)
        if snapshot.alive is not None:
            here = rows_at >= 0
            rows_at[here] = np.where(snapshot.alive[rows_at[here]], rows_at[here], -1)
            rows = rows[snapshot.alive[rows]]
        found = self._places[snapshot] = Places(sequence, rows_at, rows)
        return found

    def _positions(self, segment: Segment, sequence: NDArray[np.int64]) -> NDArray[np.int32]:
        known = self._known.get(segment)
        if known is None or (not known.complete and known.documents != len(sequence)):
            at = np.searchsorted(sequence, segment.sequence)
            at[at == len(sequence)] = 0
            same = sequence[at] == segment.sequence if len(sequence) else np.zeros(segment.rows, bool)
            known = self._known[segment] = _Known(np.where(same, at, -1).astype(np.int32), len(sequence), bool(same.all()))
        return known.positions

    def search(
        self,
        queries: NDArray[np.float32],
        count: int,
        places: Places,
        allowed: NDArray[np.bool_] | None,
        values: Mapping[str, int],
        threads: int,
    ) -> NDArray[np.int64]:
        """The rows int64 [B, count] of the best documents for ``queries`` [B, size], best first; -1 where there are fewer.

        ``allowed`` bool [rows]: which rows may be answered, ``None`` for all that stand. ``values``: FAISS's search parameters.
        """
        rows = np.full((len(queries), count), -1)
        standing = places.standing(allowed)
        permitted = int(np.count_nonzero(standing))
        most = min(count, permitted)
        if most:
            with self._lock.shared(), library.threads(threads) as faiss:
                if permitted == self.index.ntotal:
                    positions = self._ask(queries, most, values, None)
                elif self._selects:
                    bits = np.packbits(standing, bitorder="little")
                    positions = self._ask(queries, most, values, faiss.IDSelectorBitmap(bits))
                else:
                    positions = self._ask_for_more(queries, most, values, standing)
            rows[:, :most] = np.where(positions < 0, -1, places.rows_at[positions])
        return rows

    def _ask(self, queries: NDArray[np.float32], count: int, values: Mapping[str, int], selector: Any) -> NDArray[np.int64]:
        parameters = None if selector is None and not values else kinds.search_parameters(self.index, values, selector)
        try:
            _, positions = self.index.search(queries, count, params=parameters)
        except RuntimeError as error:
            raise BackendError(f"FAISS can't search with {dict(values)}: {kinds.reason(error)}") from None
        return np.asarray(positions)

    def _ask_for_more(
        self, queries: NDArray[np.float32], count: int, values: Mapping[str, int], standing: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Where FAISS can't leave documents out it is asked for so many that enough are left."""
        total = self.index.ntotal
        here = np.zeros(total, bool)
        here[: len(standing)] = standing
        left_out = total - int(np.count_nonzero(here))
        wanted = min(total, count + left_out, 2 * count * total // (total - left_out))
        found = np.full((len(queries), count), -1)
        pending = np.arange(len(queries))
        while len(pending):
            starved = []
            step = max(1, _ANSWER_BYTES // (_HIT_BYTES * wanted))
            for start in range(0, len(pending), step):
                asked = pending[start : start + step]
                positions = self._ask(queries[asked], wanted, values, None)
                kept = (positions >= 0) & here[positions]
                order = np.argsort(~kept, axis=1, kind="stable")[:, :count]
                best = np.where(np.take_along_axis(kept, order, axis=1), np.take_along_axis(positions, order, axis=1), -1)
                found[asked, : best.shape[1]] = best
                starved.append(asked[(kept.sum(axis=1) < count) & (positions[:, -1] >= 0)])  # with -1 it has given all it will
            pending = np.concatenate(starved) if wanted < total else _NONE
            wanted = min(total, 4 * wanted)
        return found

    @cached_property
    def _selects(self) -> bool:
        """Whether searches leave out what a selector does. Some kinds refuse one; that none ignores it is seen here as well."""
        if kinds.ends_on_selectors(self.index):
            return False
        only_first = library.load().IDSelectorRange(0, 1)
        try:
            query = np.ones((1, self.index.d), np.float32)
            found = self._ask(query, min(2, self.index.ntotal), self.defaults, only_first)
        except BackendError:
            return False
        return set(found.ravel().tolist()) <= {0, -1}
