"""Where segments are kept: in memory, or as folders of safetensors files."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache, partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec, Parts
from metaindex.errors import CorruptIndexError, ForkedProcessError, IndexLockedError
from metaindex.storage import derived, tensors
from metaindex.storage.cache import VectorMemory
from metaindex.storage.catalog import LevelRecord, SegmentRecord
from metaindex.storage.derived import CoarseRecord
from metaindex.storage.files import Files, Written
from metaindex.storage.pack import rows_reaching
from metaindex.storage.reading import LevelReader
from metaindex.storage.schema import Schema
from metaindex.storage.segment import Level, Segment
from metaindex.storage.tensors import ALIGNMENT, Shape, Tensor, damaged

if TYPE_CHECKING:
    from metaindex.storage.merge import Merge

_SYNCS, _WRITES = 8, 2  # at once
LOCK, READERS, STAGING, SEGMENTS = "lock", "readers", "tmp", "segments"
_SHORT_SECONDS = 1.0
_SEARCH_SECONDS = 10.0


class Documents(NamedTuple):
    """What is kept of each document beside its vectors, longest first; see ``Segment``."""

    lengths: NDArray[np.int32]
    sequence: NDArray[np.int64]
    ids: NDArray


class LevelSource(NamedTuple):
    """A level to keep: the rows that reach it, and for each of its tensors the arrays that make it up, laid end to end."""

    rows: int
    tensors: Mapping[str, Iterable[NDArray]]


class Place(Protocol):
    """Keeps segments. What was kept becomes part of the index with ``publish``, or goes away with ``discard``.

    ``failed_sync`` tells of a sync that failed: what the kernel then dropped no later sync can save.
    """

    failed_sync: OSError | None

    memory: VectorMemory | None

    def keep(self, number: int, documents: Documents, levels: Sequence[tuple[Parts, ...]], schema: Schema) -> Segment:
        """Keep levels, each in all codecs that keep it."""

    def keep_merged(self, number: int, merge: Merge, schema: Schema) -> Segment:
        """Keep what a merge makes; on disk its levels pass through memory piece by piece."""

    def publish(self, numbers: Iterable[int]) -> list[SegmentRecord]:
        """Make segments that were kept durable, and tell what the catalog has to say of them."""

    def discard(self, numbers: Iterable[int]) -> None: ...

    def retire(self, segments: Sequence[Segment]) -> None:
        """These segments are no longer part of the index; snapshots may still use them."""

    def alone(self, *, long: bool = False) -> AbstractContextManager[bool]:
        """Whether no other handle reads the index; while the block runs, none can begin to.

        One thread at a time may stay ``long``; blocks that others enter meanwhile are part of it.
        """

    def purge(self, named: Iterable[int]) -> None:
        """Unlink all segments but those ``named``, now; a snapshot that uses a retired one can go on.

        For the holder of the writer's lock who is alone. Where memory is limited nothing is mapped, so this waits for such
        snapshots.

        Raises:
            IndexLockedError: one is still in use after some seconds; nothing is unlinked then.
        """


class MemoryPlace:
    """Segments in memory live as long as a snapshot holds them."""

    failed_sync: OSError | None = None
    memory: VectorMemory | None = None

    def keep(self, number: int, documents: Documents, levels: Sequence[tuple[Parts, ...]], schema: Schema) -> Segment:
        kept = []
        for level, copies in enumerate(levels):
            start, width = schema.levels.start(level), schema.levels.width(level)
            kept.append([Level.of(start, width, kind, parts) for kind, parts in zip(schema.kept_in(level), copies)])
        own, *early = (tuple(copy) for copy in zip(*kept))
        return Segment(segment_name(number), len(documents.lengths), own, *documents, *early)

    def keep_merged(self, number: int, merge: Merge, schema: Schema) -> Segment:
        return self.keep(number, merge.documents, merge.parts(), schema)

    def publish(self, numbers: Iterable[int]) -> list[SegmentRecord]:
        return []

    def discard(self, numbers: Iterable[int]) -> None:
        pass

    def retire(self, segments: Sequence[Segment]) -> None:
        pass

    def alone(self, *, long: bool = False) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def purge(self, named: Iterable[int]) -> None:
        pass


class FolderPlace:
    """Segments as folders: written to ``tmp/``, moved to ``segments/`` when they are published, never changed."""

    def __init__(self, files: Files, memory: VectorMemory | None = None) -> None:
        self._files, self.memory = files, memory
        self._staged: dict[int, SegmentRecord] = {}
        self._unused: list[int] = []
        self._left: set[int] = set()
        self.failed_sync: OSError | None = None
        self._retired: weakref.WeakSet[Segment] = weakref.WeakSet()
        self._records: weakref.WeakKeyDictionary[Segment, SegmentRecord] = weakref.WeakKeyDictionary()
        self._alone = False
        self._process = os.getpid()

    def keep(self, number: int, documents: Documents, levels: Sequence[tuple[Parts, ...]], schema: Schema) -> Segment:
        sources = []
        for level, copies in enumerate(levels):
            names = tensor_names(schema.kept_in(level))
            arrays = {name: [getattr(copies[copy], kind)] for name, (copy, kind) in names.items()}
            sources.append(LevelSource(len(copies[0].codes), arrays))
        self.write(number, documents, sources, schema)
        return self.open(self._staged[number], schema)

    def keep_merged(self, number: int, merge: Merge, schema: Schema) -> Segment:
        self.write(number, merge.documents, merge.sources(), schema)
        return self.open(self._staged[number], schema)

    def write(self, number: int, documents: Documents, levels: Iterable[LevelSource], schema: Schema) -> None:
        """Stage a segment; its levels are written as their arrays come, so they need never be in memory as a whole."""
        folder = f"{STAGING}/{segment_name(number)}"
        assert schema.dim is not None
        if number in self._left:  # a write that failed could not remove it
            self.discard([number])
        self._staged[number] = SegmentRecord(number, 0, Written(0, 0), ())  # named before the first file, for ``discard``
        self._files.make_folder(folder)
        records: dict[int, LevelRecord] = {}

        def write_level(level: int, source: LevelSource) -> None:
            kinds = level_tensors(schema, level, source.rows)
            parts = {
                name: Tensor(kinds[name][0], cast("tuple[int, ...]", kinds[name][1]), chunks)
                for name, chunks in source.tensors.items()
            }
            records[level] = LevelRecord(source.rows, tensors.write(self._files, _level_file(folder, level), parts))

        # The deepest first: it is about half of the whole, so one thread has that to do and the other the rest.
        tasks = [partial(write_level, level, source) for level, source in enumerate(levels)][::-1]
        _run_side_by_side(tasks, _WRITES if self.memory is None else 1)  # a limit has room for the chunks of one level
        written = tensors.write(self._files, _documents_file(folder), _document_tensors(documents))
        in_order = tuple(records[level] for level in range(len(records)))
        self._staged[number] = SegmentRecord(number, len(documents.lengths), written, in_order)

    def publish(self, numbers: Iterable[int]) -> list[SegmentRecord]:
        records, numbers = [], list(numbers)
        # Not synced as they are written: synced together they cost the disk little more than one, and what is merged away
        # before the commit costs nothing.
        with self._syncing():
            self._sync(numbers)
        for number in numbers:
            name = segment_name(number)
            self._files.rename(f"{STAGING}/{name}", f"{SEGMENTS}/{name}")
            records.append(self._staged.pop(number))
        if records:
            with self._syncing():
                self._files.sync_folder(SEGMENTS)
        return records

    def discard(self, numbers: Iterable[int]) -> None:
        failed = None
        for number in numbers:
            self._staged.pop(number, None)
            self._left.add(number)
            try:
                for folder in (STAGING, SEGMENTS):
                    self._files.remove(f"{folder}/{segment_name(number)}")
                self._left.discard(number)
            except OSError as error:
                failed = failed or error
        if failed:
            raise failed

    def retire(self, segments: Sequence[Segment]) -> None:
        self._retired.update(segments)
        for segment in segments:
            weakref.finalize(segment, self._unlink, [int(segment.name)])
        self._unlink([])

    def open(self, record: SegmentRecord, schema: Schema) -> Segment:
        """A segment whose files have the right sizes and headers. Its vectors are mapped level by level, at first use.

        Raises:
            CorruptIndexError: a file is missing or not what the catalog says.
        """
        folder = self._folder(record.number)
        if schema.dim is None or len(record.levels) > len(schema.levels):
            raise damaged(folder, "the schema has too few levels for it")
        levels = [self._levels(record, level, schema) for level in range(len(record.levels))]
        own, *early = (tuple(copy) for copy in zip(*levels)) if levels else ((),)
        if self.memory is not None:
            for copy in (own, *early):
                self.memory.make_room(ALIGNMENT + sum(level.reader.room(1) for level in copy if level.reader is not None))
        documents = self.documents(record, schema)
        if rows_reaching(documents.lengths, schema.levels) != [level.rows for level in record.levels]:
            raise damaged(_documents_file(folder), "its lengths don't match the levels")
        segment = Segment(segment_name(record.number), record.rows, own, *documents, *early)
        self._records[segment] = record
        return segment

    def _levels(self, record: SegmentRecord, level: int, schema: Schema) -> Iterator[Level]:
        """A level of a segment and, where there is one, its early copy."""
        number, (rows, file) = record.number, record.levels[level]
        assert schema.dim is not None
        expected = level_tensors(schema, level, rows)
        extents = tensors.check(self._files, _level_file(self._folder(number), level), expected, file.size)
        kinds, width = schema.kept_in(level), schema.levels.width(level)
        for copy, kind in enumerate(kinds):
            names = {part: name for name, (owner, part) in tensor_names(kinds).items() if owner == copy}
            load = partial(self._load, number, level, names, expected, file.size)
            reader = None
            if self.memory is not None:
                own = {part: extents[name] for part, name in names.items()}
                reader = self._reader(number, level, own, kind, self.memory)
            yield Level(
                schema.levels.start(level), width, rows, rows * width * kind.bytes_per_token(schema.dim), kind, load, reader
            )

    def record(self, segment: Segment) -> SegmentRecord:
        """What the catalog says, or said, of a segment that this place opened."""
        return self._records[segment]

    def clean(self, named: Iterable[int], next_segment: int) -> None:
        """Remove what a killed writer left. Only the holder of the writer's lock may."""
        for name in self._list(STAGING):
            self._files.remove(f"{STAGING}/{name}")
        leftovers = set(self._list(SEGMENTS)).difference(map(segment_name, named))
        for name in leftovers:
            if int(name) >= next_segment:  # no commit ever named it, so no reader can
                self._files.remove(f"{SEGMENTS}/{name}")
        self._unlink([int(name) for name in leftovers if int(name) < next_segment])

    def _list(self, folder: str) -> list[str]:
        """The names of segments in a folder; anything else in there was put by somebody else and is left alone."""
        try:
            names = self._files.list(folder)
        except FileNotFoundError:  # copying tools leave empty folders out
            self._files.make_folder(folder)
            return []
        except OSError as error:
            raise damaged(folder, f"it is no folder of this index ({error.strerror})") from None
        return [name for name in names if self._files.names.fullmatch(f"{folder}/{name}")]

    def remove_coarse(self, kept: CoarseRecord | None) -> None:
        """Remove the files of coarse indexes but the one that is ``kept``; for the holder of the writer's lock."""
        derived.remove_others(self._files, kept)

    def _unlink(self, retired: list[int]) -> None:
        """Unlink retired segments that no snapshot uses; while another handle may read them, the next commit tries again."""
        if os.getpid() != self._process:  # a forked child runs the finalizers of its parent's objects
            return
        self._unused += retired
        if not self._unused:
            return
        # The commit is done: what stays behind is no failure of it. Another thread may take the last one meanwhile.
        with suppress(OSError, IndexError), self.alone() as alone:
            while alone and self._unused:
                self._files.remove(f"{SEGMENTS}/{segment_name(self._unused.pop())}")

    @contextmanager
    def alone(self, *, long: bool = False) -> Iterator[bool]:
        if self._alone:
            yield True
            return
        lock = None
        with suppress(BlockingIOError):  # a short hold by another thread is worth waiting for
            lock = self._files.lock(READERS, wait=_SHORT_SECONDS if long else 0)
        if lock is None:
            yield False
            return
        try:
            self._alone = long
            yield True
        finally:
            if long:
                self._alone = False
            lock.release()

    def purge(self, named: Iterable[int]) -> None:
        if self.memory is None:
            for segment in list(self._retired):
                for level in (level for copy in segment.copies for level in copy):
                    with suppress(OSError, CorruptIndexError):
                        level.parts  # noqa: B018  what is mapped stays readable without a name
        else:
            self._wait_for_searches()
        keep = set(map(segment_name, named))
        for folder in (STAGING, SEGMENTS):
            for name in self._list(folder):
                if folder == STAGING or name not in keep:
                    self._files.remove(f"{folder}/{name}")
            with self._syncing():
                self._files.sync_folder(folder)
        if any(True for _ in derived.names(self._files)):  # what they hold of a removed document, no new file has
            self.remove_coarse(None)
            with self._syncing():
                self._files.sync_folder()

    def _wait_for_searches(self) -> None:
        """Until no snapshot uses a retired segment."""
        gc.collect()
        ended: SimpleQueue[object] = SimpleQueue()  # a queue that may be put to while the collector runs
        used = [weakref.ref(segment, ended.put) for segment in self._retired]
        until = time.monotonic() + _SEARCH_SECONDS
        while any(one() is not None for one in used):
            try:
                ended.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                raise IndexLockedError(
                    f"{self._files.root}: searches of this process still read what is to be purged; under a memory_limit they "
                    "need its files; let them end and purge again"
                ) from None

    def _load(self, number: int, level: int, names: dict[str, str], expected: dict[str, tuple[str, Shape]], size: int) -> Parts:
        with self._guard(number):
            found = tensors.load(self._files, _level_file(self._folder(number), level), expected, size)
        return Parts(found[names["codes"]], found[names["scales"]] if "scales" in names else None)

    def _reader(
        self, number: int, level: int, extents: dict[str, tensors.Extent], kind: Codec, memory: VectorMemory
    ) -> LevelReader:
        def name() -> str:
            return _level_file(self._folder(number), level)

        return LevelReader(self._files, name, partial(self._guard, number), extents, kind, memory)

    @contextmanager
    def _guard(self, number: int) -> Iterator[None]:
        """Tell what it means when a segment's file can't be read because the segment is gone."""
        folder = self._folder(number)
        try:
            yield
        except (CorruptIndexError, FileNotFoundError, NotADirectoryError) as error:
            if os.path.lexists(self._files.path(folder)):
                if isinstance(error, CorruptIndexError):
                    raise
                raise damaged(folder, f"it is no segment of this index ({error.strerror})") from None
            what = "a writer merged it away after this index was closed or this process forked"
            kind = CorruptIndexError if os.getpid() == self._process else ForkedProcessError
            raise kind(f"{folder}: it is gone; most likely {what}; open the index again") from None

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed_sync = error
            raise

    def _sync(self, numbers: Sequence[int]) -> None:
        folders = [f"{STAGING}/{segment_name(number)}" for number in numbers]
        files = [name for number, folder in zip(numbers, folders) for name in _file_names(folder, self._staged[number])]
        if not files:
            return
        # Side by side, so that one flush of the disk serves many of them. All have ended when this returns or raises.
        _run_side_by_side([partial(self._files.sync, name) for name in files], _SYNCS)
        _run_side_by_side([partial(self._files.sync_folder, folder) for folder in folders], _SYNCS)

    def _folder(self, number: int) -> str:
        return f"{STAGING if number in self._staged else SEGMENTS}/{segment_name(number)}"

    def documents(self, record: SegmentRecord, schema: Schema) -> Documents:
        """What a segment keeps of its documents beside vectors. Raises CorruptIndexError."""
        name, rows = _documents_file(self._folder(record.number)), record.rows
        expected: dict[str, tuple[str, Shape]] = {"lengths": ("I32", (rows,)), "sequence": ("I64", (rows,))}
        if schema.id_kind == "text":
            expected |= {"id_offsets": ("I64", (rows + 1,)), "id_bytes": ("U8", (None,))}
        else:
            expected["ids"] = ("I64", (rows,))
        load = tensors.load if self.memory is None else tensors.read
        found = load(self._files, name, expected, record.documents.size)
        lengths = found["lengths"]
        if not rows or lengths[-1] < 1 or lengths[0] > schema.levels.tokens or np.any(lengths[1:] > lengths[:-1]):
            raise damaged(name, "its lengths don't fall from at most T to at least 1")
        ids = found["ids"] if "ids" in found else _texts(name, found["id_offsets"], found["id_bytes"])
        return Documents(lengths, found["sequence"], ids)


def _run_side_by_side(tasks: Iterable[Callable[[], None]], threads: int) -> None:
    """Run tasks in so many threads, this one among them; after one has failed no other begins, and its error is raised.

    Not by an executor: those take nothing more once the main thread has ended, and a write at that time must still work.
    """
    left, errors = deque(tasks), list[BaseException]()

    def work() -> None:
        while not errors:
            try:
                task = left.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:
                errors.append(error)

    helpers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(left)) - 1)]
    started = []
    try:
        with suppress(RuntimeError):  # the system has no more threads, or the interpreter is ending: fewer help
            for helper in helpers:
                helper.start()
                started.append(helper)
        work()
    finally:
        left.clear()  # an interrupt of this thread is no reason for the others to go on
        for helper in started:
            helper.join()
    if errors:
        raise errors[0]


def segment_name(number: int) -> str:
    return f"{number:08d}"


def level_tensors(schema: Schema, level: int, rows: int) -> dict[str, tuple[str, Shape]]:
    """The tensors of a level's file: dtype and shape of each."""
    kinds, shape = schema.kept_in(level), (rows, schema.levels.width(level))
    return {
        name: (kinds[copy].stored_dtype, (*shape, schema.dim)) if part == "codes" else ("F32", shape)
        for name, (copy, part) in tensor_names(kinds).items()
    }


@lru_cache(maxsize=64)
def tensor_names(kinds: tuple[Codec, ...]) -> Mapping[str, tuple[int, str]]:
    """The tensors of a level that ``kinds`` keep, in the order of its file: which copy each belongs to, and as what part."""
    names = {}
    for copy, kind in enumerate(kinds):
        for part in Parts._fields if kind.scaled else ("codes",):
            names[f"early_{part}" if copy else part] = (copy, part)
    return names


def record_files(record: SegmentRecord) -> list[tuple[str, Written]]:
    """The files of a segment of the last commit, and what they hold."""
    folder = f"{SEGMENTS}/{segment_name(record.number)}"
    levels = [(_level_file(folder, level), file) for level, (_, file) in enumerate(record.levels)]
    return [(_documents_file(folder), record.documents), *levels]


def _level_file(folder: str, level: int) -> str:
    return f"{folder}/level-{level}.safetensors"


def _documents_file(folder: str) -> str:
    return f"{folder}/documents.safetensors"


def _file_names(folder: str, record: SegmentRecord) -> list[str]:
    return [*(_level_file(folder, level) for level in range(len(record.levels))), _documents_file(folder)]


def _document_tensors(documents: Documents) -> dict[str, Tensor]:
    lengths, sequence, ids = documents
    rows = (len(lengths),)
    described = {"lengths": Tensor("I32", rows, [lengths]), "sequence": Tensor("I64", rows, [sequence])}
    if ids.dtype != object:
        return {**described, "ids": Tensor("I64", rows, [ids])}
    texts = [text.encode() for text in ids.tolist()]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    described["id_offsets"] = Tensor("I64", (len(offsets),), [offsets])
    described["id_bytes"] = Tensor("U8", (int(offsets[-1]),), [np.frombuffer(b"".join(texts), np.uint8)])
    return described


def _texts(name: str, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray:
    if offsets[0] != 0 or offsets[-1] != len(data) or np.any(offsets[1:] < offsets[:-1]):
        raise damaged(name, "its id_offsets don't rise from 0 to the number of bytes")
    text, bounds = data.tobytes(), offsets.tolist()
    ids = np.empty(len(bounds) - 1, dtype=object)
    try:
        ids[:] = [text[start:stop].decode() for start, stop in pairwise(bounds)]
    except UnicodeDecodeError:
        raise damaged(name, "an id is no UTF-8") from None
    return ids
