"""A transaction: one writer's changes, which become visible together or not at all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import CapacityError, DuplicateIdError, UnknownIdError
from metaindex.storage.catalog import Catalog, Counters
from metaindex.storage.compact import groups, stays
from metaindex.storage.ids import Ids, as_array, repeated
from metaindex.storage.merge import Held, Merge, due, shared
from metaindex.storage.pack import Encode, pack
from metaindex.storage.place import Documents, Place
from metaindex.storage.schema import Schema
from metaindex.storage.segment import Segment
from metaindex.storage.snapshot import Snapshot

_NONE = np.empty(0, np.int64)


class Current(NamedTuple):
    """What stands: one value, so that a reader gets all of it or none."""

    schema: Schema
    counters: Counters
    held: tuple[Held, ...]
    snapshot: Snapshot

    @classmethod
    def of(cls, schema: Schema, counters: Counters, held: Sequence[Held]) -> Current:
        removed, first = [_NONE], 0
        for segment, rows in held:
            if len(rows):
                removed.append(rows + first)
            first += segment.rows
        segments = tuple(segment for segment, _ in held)
        gone = np.concatenate(removed) if len(removed) > 1 else _NONE
        return cls(schema, counters, tuple(held), Snapshot(counters.commit, schema.levels, segments, gone))


class Transaction:
    """Made by ``Store.transaction``. The caller has checked shapes, dtypes and values."""

    def __init__(
        self, current: Current, catalog: Catalog, place: Place, encode: Encode, memory_limit: int | None = None
    ) -> None:
        self.schema = current.schema
        self._before, self._catalog, self._place, self._encode = current, catalog, place, encode
        self._memory_limit = memory_limit
        self._held = list(current.held)
        self._counters = current.counters._replace(commit=current.counters.commit + 1)
        self._staged: list[int] = []
        self._changed = False

    @property
    def next_id(self) -> int:
        """The smallest integer above every integer id that was ever used: where default ids go on."""
        return self._counters.next_id

    def set_schema(self, schema: Schema) -> None:
        """Edges of levels that hold documents must stay; new levels may follow."""
        self._changed |= schema != self.schema
        self.schema = schema

    def known(self, ids: Ids) -> NDArray:
        """Those of ``ids`` whose documents stand, this transaction's own changes counted in."""
        ids = as_array(ids)
        return ids[self._find(ids)[0] >= 0]

    def add(
        self,
        tokens: NDArray[np.float32],
        lengths: NDArray[np.int32],
        ids: Ids,
        metadata: Sequence[str | None] | None = None,
        names: Collection[str] = (),
    ) -> None:
        """Add documents [N, T, d] of ``lengths`` [N], each 1..T, in this order; ``metadata`` are JSON texts of objects, and
        ``names`` the keys in them.

        Raises:
            DuplicateIdError: an id is given twice or stands already; nothing is added.
            CapacityError: the index lives in memory and would exceed its limit.
        """
        count = len(lengths)
        if not count:
            return
        self._check_room(lengths)
        ids = as_array(ids)
        if doubled := repeated(ids):
            raise DuplicateIdError(f"ids: {doubled[0]!r} is given twice; ids are unique")
        if len(taken := self.known(ids)):
            raise DuplicateIdError(f"ids: {taken.tolist()[0]!r} stands in the index already; upsert replaces documents")
        numbers = range(self._counters.next_sequence, self._counters.next_sequence + count)
        self._changed = True
        self._catalog.add_documents(numbers, ids.tolist(), self._counters.commit)
        if metadata is not None:
            described = ((number, text) for number, text in zip(numbers, metadata) if text is not None)
            self._catalog.add_metadata(described, self._counters.commit)
            self._catalog.add_fields(names)
        next_id = self._counters.next_id if ids.dtype == object else max(self._counters.next_id, int(ids.max()) + 1)
        self._counters = self._counters._replace(next_sequence=numbers.stop, next_id=next_id)
        if self.schema.id_kind is None:
            self.schema = replace(self.schema, id_kind="text" if ids.dtype == object else "int")
        self._hold(tokens, lengths, np.arange(numbers.start, numbers.stop), ids)
        self._merge_small()

    def update_metadata(self, ids: Ids, metadata: Sequence[str | None], names: Collection[str] = ()) -> None:
        """Replace the metadata of documents by JSON texts of objects, whose keys are ``names``; ``None`` leaves them without.

        Raises:
            DuplicateIdError, UnknownIdError: an id is given twice or does not stand in the index; nothing is changed.
        """
        ids = as_array(ids)
        if doubled := repeated(ids):
            raise DuplicateIdError(f"ids: {doubled[0]!r} is given twice; give each document's metadata once")
        if not len(ids):
            return
        at, rows = self._find_all(ids)
        self._changed = True
        numbers = np.empty(len(ids), np.int64)
        for place in np.unique(at):
            here = at == place
            numbers[here] = self._held[place].segment.sequence[rows[here]]
        commit = self._counters.commit
        self._catalog.end_metadata(numbers.tolist(), commit)
        described = ((number, text) for number, text in zip(numbers.tolist(), metadata) if text is not None)
        self._catalog.add_metadata(described, commit)
        self._catalog.add_fields(names)

    def remove(self, ids: Ids) -> None:
        """Remove documents.

        Raises:
            UnknownIdError: an id does not stand in the index; nothing is removed.
        """
        ids = as_array(ids)
        if not len(ids):
            return
        at, rows = self._find_all(ids)
        self._changed = True
        for place in np.unique(at):
            segment, removed = self._held[place]
            gone = np.unique(rows[at == place])
            self._catalog.remove_documents(segment.sequence[gone].tolist(), self._counters.commit)
            self._held[place] = Held(segment, np.union1d(removed, gone))

    def compact(self, most_bytes: int) -> None:
        """Write segments that hold removed documents anew, and small neighbours together, as one of ``most_bytes`` at most."""
        held = []
        for group in groups(self._held, most_bytes):
            if stays(group):
                held += group
                continue
            self._changed = True
            merge = Merge(group, self.schema)
            if len(merge):
                held.append(Held(self._place.keep_merged(self._stage(), merge, self.schema), _NONE))
        self._held = held

    def drop_history(self, oldest: int) -> None:
        """After ``compact``: forget documents and metadata that no snapshot from commit ``oldest`` on can see."""
        self._changed |= self._catalog.drop_history(oldest) > 0

    def put_coarse(self, text: str | None) -> None:
        """Say which file the coarse index is in, ``None`` for none."""
        self._changed = True
        self._catalog.put_coarse(text)

    def drop_unused_fields(self) -> None:
        self._changed = True
        self._catalog.drop_unused_fields()

    def _hold(self, tokens: NDArray[np.float32], lengths: NDArray[np.int32], sequence: NDArray[np.int64], ids: NDArray) -> None:
        levels, order = pack(tokens, lengths, self.schema, self._encode)
        if order is None:
            # A copy: what stands in the index must not change with the caller's arrays.
            documents = Documents(np.array(lengths, np.int32), sequence, ids.copy())
        else:
            documents = Documents(lengths[order].astype(np.int32), sequence[order], ids[order])
        documents = documents._replace(ids=shared(documents.sequence, documents.ids))
        self._held.append(Held(self._place.keep(self._stage(), documents, levels, self.schema), _NONE))

    def _check_room(self, lengths: NDArray[np.int32]) -> None:
        """Whether documents of those lengths fit into memory, where the index lives there under a limit."""
        if (limit := self._memory_limit) is None:
            return
        levels, held = self.schema.levels, sum(one.segment.nbytes for one in self._held)
        needed = sum(
            int(np.count_nonzero(lengths > levels.start(level))) * levels.width(level) * self.schema.token_bytes(level)
            for level in range(len(levels))
        )
        if held + needed > limit:
            advice = f"make the index with memory_limit={held + needed} or more, or with path=, where vectors stay on disk"
            raise CapacityError("memory_limit", needed, max(0, limit - held), advice)

    def _stage(self) -> int:
        number = self._counters.next_segment
        self._counters = self._counters._replace(next_segment=number + 1)
        self._staged.append(number)
        return number

    def _merge_small(self) -> None:
        while (window := due([held.segment for held in self._held])) is not None:
            replaced = self._held[window]
            merge = Merge(replaced, self.schema)
            merged = []
            if len(merge):
                merged.append(Held(self._keep_merge(merge), _NONE))
            self._held[window] = merged
            numbers = {int(held.segment.name) for held in replaced}
            dropped = [number for number in self._staged if number in numbers]
            self._place.discard(dropped)
            self._staged = [number for number in self._staged if number not in numbers]
            del replaced, merge  # a merge that follows must not hold what this one replaced

    def _find_all(self, ids: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        at, rows = self._find(ids)
        if len(unknown := ids[at < 0]):
            raise UnknownIdError(f"ids: {', '.join(map(repr, unknown.tolist()[:5]))} not in the index")
        return at, rows

    def _keep_merge(self, merge: Merge) -> Segment:
        number = self._stage()
        if self._place.memory is not None:
            return self._place.keep_merged(number, merge, self.schema)
        return self._place.keep(number, merge.documents, merge.parts(), self.schema)

    def _find(self, ids: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which held segment, and which of its rows, each id stands in; -1 where it does not."""
        at, rows = np.full(len(ids), -1), np.full(len(ids), -1)
        if not len(ids):
            return at, rows
        low, high = (0, 0) if ids.dtype == object else (int(ids.min()), int(ids.max()))
        for place, (segment, removed) in enumerate(self._held):
            if ids.dtype != object and not segment.id_lookup.overlaps(low, high):
                continue
            found = segment.id_lookup.find(ids)
            if len(removed):
                found[np.isin(found, removed)] = -1
            here = found >= 0
            at[here], rows[here] = place, found[here]
        return at, rows

    def commit(self) -> Current:
        """Write all that is left to write and commit; the catalog's transaction ends with the caller's block."""
        if not self._changed:
            return self._before
        for record in self._place.publish(self._staged):
            self._catalog.add_segment(record, self._counters.commit)
        self._catalog.drop_segments(int(segment.name) for segment in self._replaced())
        self._catalog.put(self.schema, self._counters)
        return Current.of(self.schema, self._counters, self._held)

    def retire_replaced(self) -> None:
        """After the commit: the segments that merges replaced are no longer part of the index."""
        self._place.retire(self._replaced())

    def roll_back(self) -> None:
        self._place.discard(self._staged)

    def end(self) -> None:
        """Let go of the segments: a caller may keep this object for long."""
        del self._before, self._held

    def _replaced(self) -> list[Segment]:
        """The segments of the last commit that this transaction leaves out."""
        names = {held.segment.name for held in self._held}
        return [held.segment for held in self._before.held if held.segment.name not in names]
