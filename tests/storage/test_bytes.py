"""Bytes: what a document costs in memory, what a search reads, and that files carry no code."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tracemalloc

import numpy as np
import pytest

from metaindex.codecs import bands
from metaindex.storage.merge import CHUNK_BYTES, MERGE_BYTES
from metaindex.storage.store import Store
from tests.storage.support import CODECS, add, content, full, schema, vectors

BYTES_PER_DOCUMENT = 64
VECTOR_OVERHEAD = 0.03


def document_bytes(store):
    """All that a store in memory holds beside vectors, the lookups that searches make counted in."""
    snapshot = store.snapshot
    held = [array for one in snapshot.segments for array in (one.ids, one.sequence, one.lengths)]
    lookups = [one.id_lookup for one in (*snapshot.segments, snapshot) if "id_lookup" in vars(one)]
    return store.memory()["catalog"] + sum({id(one): one.nbytes for one in (*held, *lookups)}.values())


@pytest.mark.parametrize(("ids", "batches"), [("default", 1), ("default", 10), ("random", 1), ("random", 10)])
def test_bytes_per_document(ids, batches):
    count = 200_000
    every = np.arange(count) if ids == "default" else np.random.default_rng(0).integers(0, 1 << 63, count)
    store = Store.create(schema(dim=1, tokens=1))
    with store.transaction() as transaction:
        for part in np.split(every, batches):
            transaction.add(np.ones((len(part), 1, 1), np.float32), full(len(part), 1), part)
    store.locate(store.snapshot, every[:1000])
    assert document_bytes(store) / count <= BYTES_PER_DOCUMENT


@pytest.mark.parametrize("name", CODECS)
def test_vectors_take_their_bytes(name):
    tracemalloc.start()
    try:
        store = Store.create(schema(dim=32, tokens=16, codec=name))
        tokens = vectors(2000, 16, 32)
        before = tracemalloc.get_traced_memory()[0]
        add(store, tokens)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    needed = 2000 * sum(bands(name).at(token).bytes_per_token(32) for token in range(16))
    assert store.snapshot.segments[0].nbytes == needed
    assert grown <= needed * (1 + VECTOR_OVERHEAD) + BYTES_PER_DOCUMENT * 2000


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_an_iterator_never_holds_more_than_two_batches(tmp_path, on_disk):
    size, tokens, dim = 500, 16, 32
    batch = 4 * size * tokens * dim
    store = Store.create(schema(dim, tokens), tmp_path / "index" if on_disk else None)
    peak = 0
    tracemalloc.start()
    try:
        with store.transaction() as transaction:
            for number in range(20):
                tracemalloc.reset_peak()
                start = tracemalloc.get_traced_memory()[0]
                transaction.add(
                    vectors(size, tokens, dim, number), full(size, tokens), np.arange(number * size, (number + 1) * size)
                )
                held = 0 if on_disk else batch // 2
                peak = max(peak, tracemalloc.get_traced_memory()[1] - start - held)
    finally:
        tracemalloc.stop()
    assert peak <= 2 * batch + MERGE_BYTES + 2 * CHUNK_BYTES


def test_ten_thousand_adds_leave_few_segments():
    store = Store.create(schema(dim=1, tokens=2))
    tokens, lengths, most = np.ones((1, 2, 1), np.float32), full(1, 2), 0
    for number in range(10_000):
        with store.transaction() as transaction:
            transaction.add(tokens, lengths, np.array([number]))
        most = max(most, len(store.snapshot.segments))
    assert most <= 25
    assert np.concatenate([one.sequence for one in store.snapshot.segments]).tolist() == list(range(10_000))


@pytest.mark.parametrize("sizes", [(1, 4), (1, 5), (20, 3), (1, 1, 1, 4, 1, 1, 1, 16)])
def test_additions_of_any_sizes_merge(sizes):
    store = Store.create(schema(dim=1, tokens=1))
    most = 0
    for number in range(600):
        add(store, np.ones((sizes[number % len(sizes)], 1, 1), np.float32))
        most = max(most, len(store.snapshot.segments))
    assert most <= 20


@pytest.fixture
def saved(tmp_path):
    store = Store.create(schema(dim=64, tokens=16))
    add(store, vectors(1000, 16, 64))
    store.save(tmp_path / "index")
    return tmp_path / "index"


def mapped_levels():
    with open("/proc/self/maps") as maps:
        return sorted({os.path.basename(line.split()[-1]) for line in maps if "level-" in line})


def test_a_search_of_level_0_maps_level_0(saved):
    store = Store.open(saved)
    assert not any("level" in name for name in store.files.mapped), "opening maps no vectors"
    assert sum(store.files.read.values()) < 10 * 4096, "and reads headers only"
    first = store.snapshot.segments[0].levels[0]
    assert first.parts.codes.sum() != 0
    assert {name: size for name, size in store.files.mapped.items() if "level" in name} == {
        "segments/00000000/level-0.safetensors": os.path.getsize(saved / "segments/00000000/level-0.safetensors")
    }
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("this system has no /proc/self/maps: checked by the store's own counts only")
    assert mapped_levels() == ["level-0.safetensors"]


def resident_pages(path):
    """How many pages of a file are in memory."""
    libc = ctypes.CDLL(None)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        byte = ctypes.c_char.from_buffer(mapped)
        libc.mincore(ctypes.c_void_p(ctypes.addressof(byte)), ctypes.c_size_t(len(mapped)), pages)
        del byte
    return sum(page & 1 for page in pages)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux page cache")
def test_a_search_of_level_0_reads_level_0_from_the_disk(saved):
    files = [saved / "segments" / "00000000" / f"level-{level}.safetensors" for level in range(5)]
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(map(resident_pages, files)):
        pytest.skip("this file system does not let go of its pages (tmpfs)")
    store = Store.open(saved)
    assert store.snapshot.segments[0].levels[0].parts.codes.sum() != 0
    assert resident_pages(files[0]) >= os.path.getsize(files[0]) // mmap.PAGESIZE
    size = os.path.getsize(files[4])
    assert resident_pages(files[4]) < size // mmap.PAGESIZE // 2, "the header is read, with what the kernel reads ahead"


def test_opening_runs_no_code(saved):
    content(Store.create(schema()))  # numpy's own late imports are done
    seen, watching = [], [True]
    forbidden = {"exec", "compile", "import", "pickle.find_class", "marshal.loads", "os.system", "subprocess.Popen"}

    def hook(event, arguments):
        if watching[0] and event in forbidden:
            seen.append((event, arguments))

    sys.addaudithook(hook)
    try:
        store = Store.open(saved, verify=True)
        assert len(content(store)) == 1000
    finally:
        watching[0] = False
    assert seen == []
