"""Indexes larger than the memory they may take: the same answers, within the limit, from files that may be cut short."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
import tracemalloc
from contextlib import closing
from queue import SimpleQueue

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.codecs import CODECS, bands
from metaindex.device.residency import Residency
from metaindex.errors import CapacityError, CorruptIndexError, IndexLockedError
from metaindex.execution.windows import tokens_at
from metaindex.storage.cache import VectorMemory
from metaindex.storage.files import Files
from metaindex.storage.place import FolderPlace
from metaindex.storage.segment import Level
from metaindex.storage.store import Store
from tests.storage.support import add, assert_holds, ragged, schema, vectors

DIM, TOKENS = 17, 32
RNG = np.random.default_rng(5)


def tokens(most):
    """Coarse numbers, so that equal scores are common."""
    return np.round(RNG.standard_normal((int(RNG.integers(1, most + 1)), DIM)), 1).astype(np.float32)


DOCUMENTS = [[tokens(TOKENS) for _ in range(count)] for count in (60, 300, 25)]
QUERIES = [tokens(16) for _ in range(5)]
LISTS = [[1], [2, 3, 4, 2], [200, 300, 100, 50], [], [7, -1, 9]]
SEARCHES = [
    {},
    {"k": 1000},
    {"k": 7, "budget": (1, 1)},
    {"candidates": 50},
    {"plan": "(1,1)>60 (4,8)>20 (16,32)"},
    {"plan": "(1,1)>60 (4,8)>20 (16,32)", "scorer": "reference"},
    {"filter": list(range(5, 60, 2))},
    {"filter": list(range(41, 350)), "k": 400},
    {"filter": list(range(10, 20))},  # all removed
]


KEPT = [*({"codec": codec} for codec in sorted(CODECS)), {"codec": "4:int8,float16"}, {"codec": "float16", "early": "int8"}]


@pytest.fixture(params=KEPT, ids=lambda kept: "-".join(kept.values()))
def path(request, tmp_path):
    """Ragged documents in three segments, some of them removed."""
    with MetaIndex(**request.param, path=tmp_path / "index") as index:
        for documents in DOCUMENTS:
            index.add([*documents, *documents[:3]], metadata=[{"n": n} for n in range(len(documents) + 3)])
        index.remove(range(10, 40))
    return tmp_path / "index"


def vector_bytes(index):
    return sum(level["disk"] for level in index.memory()["levels"])


def same(found, expected):
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert [(s.stage, s.rows, s.bytes, s.scorer) for s in found.stats] == [
        (s.stage, s.rows, s.bytes, s.scorer) for s in expected.stats
    ]


def largest_document(schema):
    """Bytes of a document that has every level, each array at a multiple of 64, and of the buffer's own alignment; by the
    levels or by their early copy, of which one is read at a time."""
    return 64 + max(_document_bytes(schema.levels, kept) for kept in filter(None, (schema.codec, schema.early)))


def _document_bytes(levels, kept):
    sizes = []
    for level in range(len(levels)):
        kind, width = bands(kept).at(levels.start(level)), levels.width(level)
        sizes += [width * DIM * kind.dtype.itemsize, 4 * width * kind.scaled]
    return sum(size + -size % 64 for size in sizes)


@pytest.mark.parametrize("limit", ["tiny", "quarter", "whole"])
def test_the_same_answers_under_a_limit(path, limit):
    mapped = MetaIndex.open(path)
    chosen = {"tiny": largest_document(mapped.schema), "quarter": vector_bytes(mapped) // 4, "whole": 10**9}[limit]
    limited = MetaIndex.open(path, memory_limit=chosen)
    for _ in range(1 if limit == "tiny" else 3):  # first reads everything, then some levels have come to stay
        early = [{"plan": "(1,32):int8>60 (4,32):int8>20 (16,32)"}] if mapped.schema.early else []
        for arguments in [*SEARCHES, *early]:
            same(limited.search(QUERIES, **arguments), mapped.search(QUERIES, **arguments))
        same(limited.rerank(QUERIES, LISTS), mapped.rerank(QUERIES, LISTS))
        same(limited.rerank(QUERIES, [3, 1, 2, 3, 77], 2, (2, 5)), mapped.rerank(QUERIES, [3, 1, 2, 3, 77], 2, (2, 5)))
        for ids in (LISTS, [5, 7, 300, -1, 60, 5]):
            np.testing.assert_array_equal(limited.score(QUERIES, ids), mapped.score(QUERIES, ids))
        assert str(limited.explain(QUERIES[1], 77)) == str(mapped.explain(QUERIES[1], 77))
        for found, expected in zip(limited.get([3, 300, 200]), mapped.get([3, 300, 200])):
            np.testing.assert_array_equal(found.tokens, expected.tokens)
            assert found.metadata == expected.metadata
    assert not any("level" in name for name in limited._store.files.mapped)
    held = sum(level["ram"] for level in limited.memory()["levels"])
    assert held == vector_bytes(mapped) if limit == "whole" else held <= chosen
    assert vector_bytes(limited) == vector_bytes(mapped)
    assert repr(limited) == repr(mapped)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: "-".join(kept.values()))
def test_writing_merging_and_saving_under_a_limit(tmp_path, kept):
    described = schema(DIM, TOKENS, **kept)
    limit = largest_document(described)
    documents = vectors(40, TOKENS, DIM)
    lengths = ragged(40, TOKENS)
    held = [document[:length] for document, length in zip(documents, lengths)]
    store = Store.create(described, tmp_path / "index", memory_limit=limit)
    for number in range(40):  # many merges
        add(store, documents[number : number + 1], lengths[number : number + 1])
    assert len(store.snapshot.segments) < 10
    store.save(tmp_path / "copy")
    assert not any("level" in file for file in store.files.mapped)
    store.close()
    for path in ("index", "copy"):
        assert_holds(Store.open(tmp_path / path, verify=True), range(40), held)


def _limited(path, files):
    """A store of 2,000 documents, far larger than its limit."""
    with closing(Store.create(schema(16, 8), path)) as store:
        add(store, vectors(2000, 8, 16))
    return Store.open(path, memory_limit=20_000, files=files)


class _Recorded(Files):
    reads: list[tuple[str, int, int]] = []  # noqa: RUF012

    def read_at(self, name, pieces):
        pieces = list(pieces)
        _Recorded.reads += [(name, offset, len(buffer)) for offset, buffer in pieces]
        return super().read_at(name, pieces)


def test_a_scan_reads_level_0_in_order_and_a_gather_reads_neighbours_at_once(tmp_path):
    store = _limited(tmp_path / "index", _Recorded)
    index = _index_on(store)
    query = vectors(1, 4, 16)
    _Recorded.reads = []
    index.search(query, budget=(1, 1))
    offsets = [offset for name, offset, _ in _Recorded.reads if "level-0" in name]
    assert len(offsets) > 10
    assert offsets == sorted(set(offsets))
    assert sum(size for *_, size in _Recorded.reads) == 2000 * 32, "every row once"
    _Recorded.reads = []
    index.score(query, [7, 8, 9, 3, 1500, 1501], (4, 1))
    assert [size for *_, size in _Recorded.reads] == [32, 3 * 32, 2 * 32]
    assert max(size for *_, size in _Recorded.reads) <= 20_000


class _Threads(Files):
    read_by: list[str] = []  # noqa: RUF012

    def read_at(self, name, pieces):
        if "level" in name:
            _Threads.read_by.append(threading.current_thread().name.rpartition("_")[0])
        return super().read_at(name, pieces)


def test_the_next_window_is_read_while_one_is_scored(tmp_path):
    store = _limited(tmp_path / "index", _Threads)
    index, memory, query = _index_on(store), store._place.memory, vectors(1, 4, 16)
    index.search(query)
    assert _Threads.read_by[0] != "metaindex-read"
    assert set(_Threads.read_by[4:]) == {"metaindex-read"}
    before = threading.active_count()
    (file,) = (tmp_path / "index" / "segments").glob("*/level-3.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptIndexError, match="cut short while it was open"):
        index.search(query)
    assert memory._leased == 0
    assert threading.active_count() == before
    file.write_bytes(data)
    same(index.search(query), MetaIndex.open(tmp_path / "index").search(query))


def _index_on(store):
    index = MetaIndex.__new__(MetaIndex)
    index._serve(store, 1, Residency())
    return index


def test_what_does_not_fit_is_a_capacity_error_and_the_next_call_works(path):
    limited = MetaIndex.open(path, memory_limit=300)
    with pytest.raises(CapacityError, match=r"memory_limit: .* are needed, 300 are free; .* memory_limit=") as refused:
        limited.search(QUERIES)
    error = pickle.loads(pickle.dumps(refused.value))
    assert (error.needed, error.free, error.advice) == (refused.value.needed, 300, refused.value.advice)
    assert isinstance(error, MemoryError)
    with pytest.raises(CapacityError):
        limited.get(range(50, 300))
    mapped = MetaIndex.open(path)
    same(limited.search(QUERIES, budget=(4, 1)), mapped.search(QUERIES, budget=(4, 1)))
    same(MetaIndex.open(path, memory_limit=error.needed).search(QUERIES), mapped.search(QUERIES))
    with pytest.raises(ValueError, match="memory_limit: expected at least 1"):
        MetaIndex.open(path, memory_limit=0)


def test_in_memory_an_add_beyond_the_limit_changes_nothing():
    index = MetaIndex(codec="float16", memory_limit=10 * 8 * 4 * 2)
    index.add(np.ones((6, 8, 4), np.float32))
    with pytest.raises(CapacityError, match="320 bytes are needed, 256 are free") as refused:
        index.add(np.ones((5, 8, 4), np.float32))
    assert "memory_limit=704" in refused.value.advice
    assert len(index) == 6
    index.add(np.ones((4, 8, 4), np.float32))
    assert list(index) == list(range(10))
    with pytest.raises(CapacityError):
        index.add(iter([np.ones((0, 8, 4), np.float32), np.ones((1, 1, 4), np.float32)]))
    assert len(index) == 10


def test_level_0_comes_first_and_is_read_once(tmp_path):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(vectors(1000, 8, 16))
    limited = MetaIndex.open(tmp_path / "index", memory_limit=2 * 32_000)
    query = vectors(1, 4, 16)[0]
    limited.search(query)
    assert [level["ram"] for level in limited.memory()["levels"]] == [32_000, 0, 0, 0]
    before = sum(limited._store.files.read.values())
    limited.search(query, budget=(1, 1))
    assert sum(limited._store.files.read.values()) == before


def test_searching_threads_share_the_limit(path):
    mapped = MetaIndex.open(path)
    searches = SEARCHES[2:5]
    expected = [mapped.search(QUERIES, **arguments) for arguments in searches]
    limited = MetaIndex.open(path, memory_limit=largest_document(mapped.schema), num_threads=1)
    failures = []

    def searching():
        try:
            for arguments, answer in zip(searches, expected):
                same(limited.search(QUERIES, **arguments), answer)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=searching, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
    assert limited._store._place.memory._leased == 0


def test_leases_never_exceed_the_share_and_wait_in_order():
    memory = VectorMemory(400)
    granted = []
    with memory.lease(10, 1000) as first, memory.lease(10, 1000) as second:
        assert (first, second) == (50, 25)

        def asking(least):
            with memory.lease(least, least) as nbytes:
                granted.append(nbytes)

        threads = [threading.Thread(target=asking, args=(least,)) for least in (90, 5)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            with memory._changed:
                assert memory._changed.wait_for(lambda number=number: len(memory._waiting) == number, 10) or number == 1
        assert granted == [], "the small one waits behind the large one"
    for thread in threads:
        thread.join(10)
    assert sorted(granted) == [5, 90]
    with pytest.raises(CapacityError, match="500 bytes are needed, 100 are free"), memory.lease(500, 500):
        pass


def test_vectors_in_memory_stay_within_the_limit(tmp_path):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(vectors(4000, 32, 64))
    total, limit = 4000 * 32 * 128, 4000 * 32 * 128 // 8
    limited = MetaIndex.open(tmp_path / "index", memory_limit=limit, num_threads=1)
    query = vectors(1, 8, 64)[0]
    limited.search(query, budget=(1, 1))
    tracemalloc.start()
    try:
        for _ in range(3):
            limited.search(query)
            limited.search(query, plan="(1,1)>900 (8,32)")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit + (1 << 20) < total // 4


_CUT = """
import os, sys
import numpy as np
from metaindex import MetaIndex
from metaindex.errors import CorruptIndexError
path, limit = sys.argv[1], int(sys.argv[2]) or None
index = MetaIndex.open(path, memory_limit=limit)
query = np.ones((1, 64), np.float32)
index.search(query)
os.truncate(os.path.join(path, "segments", "00000000", "level-5.safetensors"), 8192)
try:
    index.search(query)
except CorruptIndexError as error:
    print("corrupt", error)
    index.search(query, budget=1)
    print("goes on")
"""


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["mapped", "limited"])
def test_a_file_cut_short_while_it_is_open(tmp_path, limit):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(vectors(2000, 32, 64))
    done = subprocess.run(
        [sys.executable, "-c", _CUT, str(tmp_path / "index"), str(limit)], capture_output=True, text=True, timeout=60
    )
    if limit:
        assert done.returncode == 0, done.stderr
        assert "level-5.safetensors: it was cut short while it was open" in done.stdout
        assert "goes on" in done.stdout
    else:
        assert done.returncode == -signal.SIGBUS or "corrupt" in done.stdout


_PEAK = """
import resource, sys
import numpy as np
from metaindex import MetaIndex
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
path, limit = sys.argv[1], int(sys.argv[2]) or None
index = MetaIndex.open(path, memory_limit=limit, num_threads=2)
query = np.random.default_rng(0).standard_normal((2, 4, 128)).astype(np.float32)
small = MetaIndex()
small.add(query)
small.search(query)
before = peak()
for _ in range(3):
    index.search(query, plan="(1,1)>5000 (4,16)>2000 (4,32)")
index.search(query)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_the_process_grows_by_no_more_than_the_limit(tmp_path):
    limit, slack = 24 << 20, 8 << 20
    with MetaIndex(path=tmp_path / "index", codec="float16") as index:
        index.add(np.random.default_rng(number).standard_normal((1024, 32, 128), dtype=np.float32) for number in range(12))
        assert vector_bytes(index) == 4 * limit

    def grown(memory_limit):
        command = [sys.executable, "-c", _PEAK, str(tmp_path / "index"), str(memory_limit)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    assert grown(0) > 3 * limit, "the measurement sees what a map brings in"
    assert grown(limit) <= limit + slack


def test_a_longer_document_makes_room_for_itself(tmp_path):
    index = MetaIndex(path=tmp_path / "index", memory_limit=40_000)
    index.add(vectors(200, 2, 16))
    index.search(vectors(1, 2, 16)[0])
    assert sum(level["ram"] for level in index.memory()["levels"]) == 200 * 2 * 32
    index.add(vectors(2, 1000, 16))  # one takes more than what levels leave
    assert sum(level["ram"] for level in index.memory()["levels"]) <= 8_000
    plain = MetaIndex()
    for each in (vectors(200, 2, 16), vectors(2, 1000, 16)):
        plain.add(each)
    query = vectors(1, 2, 16)[0]
    np.testing.assert_array_equal(index.search(query).scores, plain.search(query).scores)


def test_a_level_has_no_parts_under_a_limit(path):
    level: Level = MetaIndex.open(path, memory_limit=10**6)._store.snapshot.segments[0].levels[0]
    with pytest.raises(AssertionError, match="memory is limited"):
        _ = level.parts


def test_verify_and_repair_under_a_limit(path):
    described = MetaIndex.open(path).schema
    with MetaIndex.open(path, "r+", memory_limit=largest_document(described)) as limited:
        found = limited.verify(sample=50)
        assert found.ok, str(found)
        assert found.sampled == 50
        assert not any("level" in name for name in limited._store.files.mapped)
        file = path / "segments" / "00000000" / "level-1.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert [one.file for one in limited.verify().damage] == ["segments/00000000/level-1.safetensors"]
    with pytest.raises(CorruptIndexError, match="level-1"):
        MetaIndex.open(path, verify=True, memory_limit=10**6)
    repaired = MetaIndex.repair(path, apply=True)
    assert repaired.applied
    with MetaIndex.open(path, verify=True, memory_limit=largest_document(described)) as limited:
        assert len(limited) == repaired.kept
        assert limited.verify().ok
    with MetaIndex.open(path, memory_limit=300) as limited, pytest.raises(CapacityError):
        limited.verify()


@pytest.mark.parametrize("ends", [True, False])
def test_a_purge_waits_for_searches_under_a_limit(tmp_path, monkeypatch, ends):
    documents = vectors(40)
    store = Store.create(schema(codec="float32"), tmp_path / "index", memory_limit=10**4)
    for part in (documents[:20], documents[20:]):
        add(store, part)
    with store.transaction() as transaction:
        transaction.remove(range(0, 40, 2))
    real, taken, found = FolderPlace.keep_merged, [], []

    def keep_merged(self, *arguments):
        taken.append(store.snapshot)  # as a search in another thread does meanwhile
        return real(self, *arguments)

    class Waited(SimpleQueue):
        def get(self, *arguments, **options):
            if ends and taken:  # the search ends while the purge waits, and still reads all it needs
                (snapshot,) = taken
                found.extend(tokens_at(snapshot, row) for row in range(40))
                del snapshot
                taken.clear()
            return super().get(*arguments, **options)

    monkeypatch.setattr(FolderPlace, "keep_merged", keep_merged)
    monkeypatch.setattr("metaindex.storage.place.SimpleQueue", Waited)
    if ends:
        store.compact(purge=True)
        np.testing.assert_array_equal(found, documents)
    else:
        monkeypatch.setattr("metaindex.storage.place._SEARCH_SECONDS", 0.05)
        with pytest.raises(IndexLockedError, match="let them end and purge again"):
            store.compact(purge=True)
        np.testing.assert_array_equal(tokens_at(taken[0], 39), documents[39])
        with pytest.raises(IndexLockedError, match="older snapshots"):
            store.compact(purge=True)
        taken.clear()
        store.compact(purge=True)
    assert len(list((tmp_path / "index" / "segments").iterdir())) == 1
    assert len(store.snapshot) == 20


def test_documents_are_read_not_mapped(path):
    limited = MetaIndex.open(path, memory_limit=10**6)
    assert not limited._store.files.mapped
    assert limited.memory()["documents"]["disk"] == 0
    (path / "segments" / "00000000" / "level-1.safetensors").unlink()
    with pytest.raises(CorruptIndexError, match="no segment of this index"):
        limited.search(QUERIES)
