"""Whether an index is what a writer wrote: checksums, structure, values, and that catalog and segments agree."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.door import MAX_ID_BYTES
from metaindex.errors import CorruptIndexError, MetaIndexError
from metaindex.storage import blocks, derived, tensors
from metaindex.storage.catalog import Catalog, Counters, SegmentRecord
from metaindex.storage.database import NAME, row_checksum
from metaindex.storage.derived import CoarseRecord
from metaindex.storage.files import Files
from metaindex.storage.ids import repeated
from metaindex.storage.pack import rows_reaching
from metaindex.storage.place import Documents, FolderPlace, level_tensors, record_files
from metaindex.storage.schema import Schema
from metaindex.storage.segment import Segment

_BATCH = 20_000
_EXAMPLES = 3


@dataclass(frozen=True)
class Damage:
    """Something that no writer wrote: in which ``file``, ``what`` it is, and how many ``documents`` it touches."""

    file: str
    what: str
    documents: int

    def __str__(self) -> str:
        touched = f" ({self.documents:,} documents)" if self.documents else ""
        return f"{self.file}: {self.what}{touched}"


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found. ``ok``: nothing is damaged. ``notes`` tell of files that are no part of the index.

    ``documents`` stand in ``segments``; ``files`` of ``nbytes`` were read; ``sampled`` documents were scored by two scorers.
    """

    ok: bool
    documents: int
    segments: int
    files: int
    nbytes: int
    sampled: int
    damage: tuple[Damage, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        read = f"{self.documents:,} documents in {self.segments:,} segments; {self.nbytes:,} bytes in {self.files:,} files read"
        head = f"{'ok' if self.ok else 'DAMAGED'}: {read}; {self.sampled:,} documents scored by two scorers"
        return "\n".join([head, *(f"  {one}" for one in self.damage), *(f"  note: {note}" for note in self.notes)])


class Rows(NamedTuple):
    """What stands in the segments: sequence numbers, rising, and the id of each; ``removed`` are gone."""

    sequence: NDArray[np.int64]
    ids: NDArray


class Inspection:
    """One look at everything. It never raises for damage: what it found is in ``damage`` and, for a repair, in the sets.

    ``segments``: numbers of damaged segments. ``lost``: sequence numbers of standing documents that no segment holds.
    ``unknown``: those that stand in a segment and not, or not so, in the catalog. ``documents``: those whose row is damaged.
    ``metadata``: bad rows (sequence, created). ``unlisted``: names of fields.
    """

    def __init__(self, files: Files | None, catalog: Catalog, schema: Schema, counters: Counters) -> None:
        self._files, self._catalog, self._schema, self._counters = files, catalog, schema, counters
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self.files = self.nbytes = 0
        self.segments: set[int] = set()
        self.lost: set[int] = set()
        self.unknown: set[int] = set()
        self.documents: set[int] = set()
        self.metadata: set[tuple[int, int]] = set()
        self.unlisted: set[str] = set()
        self._found: dict[int, tuple[NDArray[np.int64], NDArray]] = {}
        self._unreadable = False

    def look(self, segments: Sequence[Segment] | Sequence[SegmentRecord], place: FolderPlace | None) -> None:
        """Check the catalog, then each of ``segments``, then that both name the same documents."""
        if not self._catalog_is_sound():
            return
        for one in segments:
            if isinstance(one, Segment):
                self._in_memory(one)
            else:
                assert place is not None
                self._on_disk(one, place)
        try:
            self._coarse()
            self._compare()
            self._metadata()
        except (MetaIndexError, OSError, UnicodeError) as error:
            self._note(NAME, error)

    def result(self, documents: int, segments: int) -> Verification:
        counts = (documents, segments, self.files, self.nbytes, 0)
        return Verification(not self.damage, *counts, tuple(self.damage), tuple(self.notes))

    def rows(self, leave_out: Collection[int] = ()) -> Rows:
        """What the segments that could be read hold, but those to ``leave_out``, in the order of addition."""
        found = [held for number, held in self._found.items() if number not in leave_out]
        sequence = np.concatenate([np.empty(0, np.int64), *(sequence for sequence, _ in found)])
        ids = np.concatenate([ids for _, ids in found]) if found else np.empty(0, np.int64)
        order = np.argsort(sequence, kind="stable")
        return Rows(sequence[order], ids[order])

    def _add(self, file: str, what: str, documents: int = 0) -> None:
        self.damage.append(Damage(file, what, documents))

    def _note(self, file: str, error: Exception, documents: int = 0) -> None:
        what = str(error.strerror if isinstance(error, OSError) and error.strerror else error)
        what = what.removeprefix(f"{file}: ").partition("; restore the index from a copy")[0]
        self._add(file, what if isinstance(error, MetaIndexError) else f"it can't be read ({what})", documents)

    def _catalog_is_sound(self) -> bool:
        if self._files is not None:
            self.files, self.nbytes = 1, self._catalog.nbytes
        wrong = self._catalog.damage()
        for line in wrong:
            self._add(NAME, f"SQLite finds: {line}")
        try:
            self._catalog.state()
            for (orphan,) in self._catalog.orphans():
                self._add(NAME, f"levels of segment {orphan}, which is not in the catalog")
        except MetaIndexError as error:
            self._note(NAME, error)
            return False
        return not wrong

    # segments

    def _on_disk(self, record: SegmentRecord, place: FolderPlace) -> None:
        assert self._files is not None
        before, ((documents_file, _), *levels) = len(self.damage), record_files(record)
        documents = self._documents(documents_file, record, place)
        for level, (name, _) in enumerate(levels):
            self._level(name, level, record, None if documents is None else documents.lengths)
        folder = documents_file.rpartition("/")[0]
        with suppress(OSError):
            expected = {name.rpartition("/")[2] for name, _ in record_files(record)}
            self.notes += [
                f"{folder}/{name} is no part of the index" for name in self._files.list(folder) if name not in expected
            ]
        if len(self.damage) > before:
            self.segments.add(record.number)
        if documents is None:
            self._unreadable = True
        else:
            self._found[record.number] = (documents.sequence, documents.ids)

    def _documents(self, name: str, record: SegmentRecord, place: FolderPlace) -> Documents | None:
        assert self._files is not None
        try:
            read = self._files.checksum(name)
            self.files, self.nbytes = self.files + 1, self.nbytes + read.size
            if read.size == record.documents.size and read.checksum != record.documents.checksum:
                self._add(name, "its checksum is wrong", record.rows)
                return None
            documents = place.documents(record, self._schema)
        except (CorruptIndexError, OSError) as error:
            self._note(name, error, record.rows)
            return None
        wrong = _wrong_documents(documents, record, self._schema, self._counters)
        for what in wrong:
            self._add(name, what, record.rows)
        return None if wrong else documents

    def _level(self, name: str, level: int, record: SegmentRecord, lengths: NDArray[np.int32] | None) -> None:
        assert self._files is not None
        rows, written = record.levels[level]
        try:
            expected = level_tensors(self._schema, level, rows)
            extents = tensors.check(self._files, name, expected, written.size)
            start = self._schema.levels.start(level)
            read, wrong = blocks.checked(self._files, name, extents, lengths, start)
        except (MetaIndexError, OSError) as error:
            self._note(name, error, rows)
            return
        self.files, self.nbytes = self.files + 1, self.nbytes + read.size
        if read != written:
            self._add(name, "its checksum is wrong", rows)
            return  # what its values are then says nothing more
        for what in wrong:
            self._add(name, what, rows)

    def _in_memory(self, segment: Segment) -> None:
        for number, level in ((number, level) for copy in segment.copies for number, level in enumerate(copy)):
            self.nbytes += level.nbytes
            lengths = segment.lengths[: level.rows]
            for what in dict.fromkeys(blocks.checked_in_memory(level.parts, level.codec, lengths, level.start)):
                self._add(f"segment {segment.name}, level {number}", what, level.rows)
        self._found[int(segment.name)] = (segment.sequence, segment.ids)

    def _coarse(self) -> None:
        """A coarse index that is damaged is no damage: it is derived, and its file is passed over."""
        if self._files is None or (text := self._catalog.coarse()) is None:
            return
        record = CoarseRecord.from_json(text)
        what = "its record means nothing" if record is None else derived.faults(self._files, record)
        if what is not None:
            name = "the coarse index" if record is None else record.name
            self.notes.append(f"{name}: {what}; it is passed over, and build_coarse() makes it anew")
        elif record is not None:
            self.files, self.nbytes = self.files + 1, self.nbytes + record.file.size

    # catalog and segments

    def _compare(self) -> None:
        """Every row of ``documents`` against its checksum, its bounds and the segment that holds it."""
        rows, at = self.rows(), self._counters.commit
        twice = rows.sequence[1:][rows.sequence[1:] == rows.sequence[:-1]]
        if len(twice):
            self._add("segments", f"documents stand in two places: {_some(twice.tolist())}", len(twice))
        wrong: dict[str, list[int]] = {}
        standing: list[Any] = []
        first = 0
        for batch, commit in self._catalog.document_rows(_BATCH):
            known, visible = [], []
            for sequence, id_, created, removed, stored in batch:
                if what := self._wrong_row(sequence, id_, created, removed, stored, commit):
                    wrong.setdefault(what, []).append(sequence)
                    self.documents.add(sequence)
                    continue
                known.append((sequence, id_))
                if created <= at and (removed is None or removed > at):
                    visible.append(sequence)
                    standing.append(id_)
            stop = int(np.searchsorted(rows.sequence, batch[-1][0], side="right"))
            here = dict(zip(rows.sequence[first:stop].tolist(), rows.ids[first:stop].tolist()))
            first = stop
            ids = dict(known)
            self.unknown.update(number for number, id_ in here.items() if number not in ids or ids[number] != id_)
            self.lost.update(number for number in visible if number not in here)
        self.unknown.update(rows.sequence[first:].tolist())
        for what, numbers in wrong.items():
            self._add(NAME, f"rows of documents: {what}: sequence {_some(numbers)}", len(numbers))
        # Where a segment can't be read, or a row is damaged, that has been told already.
        places = ((self.unknown - self.documents, "the catalog"), (set() if self._unreadable else self.lost, "a segment"))
        for numbers_, missing in places:
            if numbers_:
                what = f"catalog and segments name different documents: not, or not so, in {missing}: sequence"
                self._add(NAME, f"{what} {_some(sorted(numbers_))}", len(numbers_))
        if doubled := repeated(np.array([*standing, None], object)[:-1]):
            self._add(NAME, f"ids stand twice: {_some(doubled)}", len(doubled))

    def _wrong_row(self, sequence: Any, id_: Any, created: Any, removed: Any, stored: Any, commit: int) -> str | None:
        if self._files is not None and stored != row_checksum(sequence, id_, created, removed):
            return "wrong checksum"
        if not sequence >= 0 or wrong_id(id_, self._schema):
            return "no sequence number or id of this index"
        if not _commits(created, removed, commit):
            return "commits that can't be"
        return None

    def _metadata(self) -> None:
        wrong: dict[str, list[int]] = {}
        fields = set(self._catalog.fields())
        before: tuple[int, int | None] = (-1, None)
        for batch, commit in self._catalog.metadata_rows(_BATCH):
            numbers = sorted({row[0] for row in batch if type(row[0]) is int})
            known = self._catalog.known_documents(numbers)
            fields.update(self._catalog.fields())
            for sequence, text, created, removed, stored in batch:
                what = None
                if self._files is not None and stored != row_checksum(sequence, text, created, removed):
                    what = "wrong checksum"
                elif (names := field_names(text)) is None:
                    what = "no JSON object"
                elif not _commits(created, removed, commit):
                    what = "commits that can't be"
                elif sequence not in known:
                    what = "a document that is not in the catalog"
                elif before[0] == sequence and (before[1] is None or before[1] > created):
                    what = "two versions at once"
                elif not names <= fields:
                    self.unlisted |= names - fields
                if what:
                    wrong.setdefault(what, []).append(sequence)
                    if sequence in known or type(sequence) is not int:  # a document may come back from its segment
                        self.metadata.add((sequence, created))
                else:
                    before = (sequence, removed)
        if self.unlisted:
            self._add(NAME, f"fields of metadata are not listed: {_some(sorted(self.unlisted))}")
        for what, numbers in wrong.items():
            self._add(NAME, f"rows of metadata: {what}: sequence {_some(numbers)}", len(numbers))


def field_names(text: Any) -> set[str] | None:
    """The names in a JSON object, ``None`` where the text is none."""
    if not isinstance(text, str):  # json takes bytes as well
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinity
    except (ValueError, TypeError, RecursionError):
        return None
    return set(value) if isinstance(value, dict) else None


def wrong_id(id_: Any, schema: Schema) -> bool:
    """Whether no writer takes this id."""
    if schema.id_kind == "text":
        return not isinstance(id_, str) or len(id_.encode(errors="surrogatepass")) > MAX_ID_BYTES
    return type(id_) is not int or id_ < 0


def _wrong_documents(documents: Documents, record: SegmentRecord, schema: Schema, counters: Counters) -> list[str]:
    lengths, sequence, ids = documents
    wrong = []
    if [level.rows for level in record.levels] != rows_reaching(lengths, schema.levels):
        wrong.append("its lengths don't match the levels")
    if sequence.min() < 0 or sequence.max() >= counters.next_sequence:
        wrong.append("its sequence numbers were never given out")
    if np.any((lengths[1:] == lengths[:-1]) & (sequence[1:] <= sequence[:-1])):
        wrong.append("documents of one length don't stand in the order of addition")
    if ids.dtype == object:
        if any(wrong_id(id_, schema) for id_ in ids.tolist()):
            wrong.append("ids are longer than an id may be")
    elif ids.min() < 0 or ids.max() >= counters.next_id:
        wrong.append("its ids were never given out")
    return wrong


def _commits(created: Any, removed: Any, commit: int) -> bool:
    if type(created) is not int or not 0 <= created <= commit:
        return False
    return removed is None or (type(removed) is int and created <= removed <= commit)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _some(values: Sequence[Any]) -> str:
    listed = ", ".join(map(repr, values[:_EXAMPLES]))
    return listed if len(values) <= _EXAMPLES else f"{listed} and {len(values) - _EXAMPLES:,} more"
