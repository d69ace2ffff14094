"""``verify`` and ``repair``: all that can be wrong is told, and what is sound stays."""

from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.errors import CapacityError, CorruptIndexError, IndexLockedError
from metaindex.scoring.cpu import CpuScorer
from tests.storage import reader
from tests.storage.hostile.mutations import DOCUMENTS, LEVEL, assign, forge, sql, stale, values


def documents(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((int(t), 4)).astype(np.float32) for t in rng.integers(1, 6, count)]


@pytest.fixture
def path(tmp_path):
    """Two segments of 40 and 6 documents, one of them removed, some with metadata."""
    with MetaIndex(path=tmp_path / "index", codec="float32", fields=["n"]) as index:
        index.add(documents(40), metadata=[{"n": n} if n % 2 else None for n in range(40)])
        index.add(documents(6, 1), metadata=[{"late": True}] * 6)
        index.remove([3])
    return tmp_path / "index"


def kept(path):
    with MetaIndex.open(path, verify=True) as index:
        return {one.id: (one.tokens.tobytes(), one.metadata) for one in index.get(list(index))}


def flip(path, name):
    data = bytearray((path / name).read_bytes())
    data[-1] ^= 1
    (path / name).write_bytes(data)


def all_bytes(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "lock"}


DAMAGES = {
    "a level": (lambda path: flip(path, "segments/00000001/level-0.safetensors"), set(range(40, 46))),
    "documents": (lambda path: flip(path, "segments/00000000/documents.safetensors"), set(range(40)) - {3}),
    "a missing file": (lambda path: (path / LEVEL).unlink(), set(range(40)) - {3}),
    "a row's checksum": (sql("UPDATE documents SET checksum = 1 WHERE sequence = 5", right=False), set()),
    "another id": (sql("UPDATE documents SET id = 77 WHERE sequence = 5"), set()),
    "a missing row": (sql("DELETE FROM documents WHERE sequence = 5"), set()),
    "a row too much": (sql("INSERT INTO documents VALUES (45000, 900, 1, NULL, 0)"), {900}),
    "bad metadata": (sql("UPDATE metadata SET fields = '[]' WHERE sequence = 5"), set()),
    "metadata no index can read": (stale("metadata_field_%", "UPDATE metadata SET fields = '[' WHERE sequence = 5"), set()),
    "metadata of nobody": (sql("UPDATE metadata SET sequence = 9999 WHERE sequence = 5"), set()),
    "levels of nobody": (sql("INSERT INTO levels VALUES (7, 0, 1, 1, 1)"), set()),
    "NaN": (values(LEVEL, "codes", assign((0, 0, 0), np.nan)), set(range(40)) - {3}),
    "a standing id twice": (values(DOCUMENTS, "ids", assign(0, 41)), None),
}


@pytest.mark.parametrize("limit", [400, 10_000])
def test_a_limited_index_is_verified_too(path, limit):
    with MetaIndex.open(path, memory_limit=limit) as index:
        found = index.verify()
    assert found.ok
    assert found.sampled == 45


def test_a_limit_below_one_document_is_no_damage(path):
    with MetaIndex.open(path, memory_limit=1) as index:
        with pytest.raises(CapacityError, match="memory_limit="):
            index.verify()
        assert index.verify(sample=0).ok


@pytest.mark.parametrize("name", DAMAGES)
def test_repair_keeps_what_is_sound(path, name):
    before = kept(path)
    damage, lost = DAMAGES[name]
    damage(path)
    with pytest.raises(CorruptIndexError):
        MetaIndex.open(path, verify=True)
    with pytest.raises(reader.DamagedError):
        reader.read(path)
    files = all_bytes(path)
    told = MetaIndex.repair(path)
    assert told.possible
    assert not told.applied
    assert told.damage
    assert files == all_bytes(path), "nothing is changed before it is told"
    done = MetaIndex.repair(path, apply=True)
    assert done.applied
    assert (done.lost, done.kept, done.damage) == (told.lost, told.kept, told.damage)
    if lost is not None:
        assert set(done.lost) == lost
    after = kept(path)
    assert len(after) == done.kept
    for id_, (tokens, metadata) in after.items():
        assert tokens == before[id_][0]
        assert metadata == (None if "metadata" in name and id_ == 5 else before[id_][1])
    assert set(before) - set(after) == set(done.lost) - {900}
    with MetaIndex.open(path, "r+") as index:
        assert index.verify().ok
        index.add(documents(2))
        assert index.verify().ok
    assert "nothing to repair" in str(MetaIndex.repair(path))
    reader.read(path)


STALE = {
    "documents_removed": (
        "UPDATE documents SET removed = NULL WHERE sequence = 3",
        "UPDATE documents SET removed = 3 WHERE sequence = 3",
    ),
    "metadata_field_0": (
        "UPDATE metadata SET fields = '{}' WHERE sequence = 5",
        "UPDATE metadata SET fields = '{\"n\":5}' WHERE sequence = 5",
    ),
}


@pytest.mark.parametrize("name", STALE)
def test_repair_rebuilds_an_index_of_the_catalog(path, name):
    """Every row is as it was, and an index lacks one of them: what it should find is missing until it is rebuilt."""
    before = kept(path)
    away, back = STALE[name]
    sql(away)(path)
    stale(name, back)(path)
    with MetaIndex.open(path) as index:
        assert (3 in index) == (name == "documents_removed")
        assert found_by_field(index) == (name == "documents_removed")
        assert name in str(index.verify())
    with pytest.raises(CorruptIndexError):
        MetaIndex.open(path, verify=True)
    files = all_bytes(path)
    told = MetaIndex.repair(path)
    assert told.possible
    assert not told.applied
    assert (told.lost, told.kept) == ([], len(before))
    assert files == all_bytes(path), "nothing is changed before it is told"
    done = MetaIndex.repair(path, apply=True)
    assert done.applied
    assert (done.damage, done.lost, done.kept) == (told.damage, [], len(before))
    assert kept(path) == before
    with MetaIndex.open(path) as index:
        assert 3 not in index
        assert found_by_field(index)
    reader.read(path)


def found_by_field(index):
    return 5 in index.search(np.ones((1, 4)), 5, filter={"n": 5}).ids


def test_a_damaged_segment_names_the_repair(path):
    (path / LEVEL).write_bytes(b"")
    with pytest.raises(CorruptIndexError, match="run 'metaindex repair'"):
        MetaIndex.open(path)
    (damage,) = MetaIndex.repair(path).damage
    assert "repair" not in damage.what


def test_what_cant_be_repaired(path):
    (path / "catalog.sqlite").write_bytes(b"x" * 5000)
    found = MetaIndex.repair(path, apply=True)
    assert not found.possible
    assert not found.applied
    assert "from a copy" in str(found)


def test_a_repair_takes_the_writers_lock(path):
    with MetaIndex.open(path, "r+"), pytest.raises(IndexLockedError):
        MetaIndex.repair(path)


def test_verify_tells_and_never_raises(path):
    with MetaIndex.open(path) as index:
        assert index.verify().ok
        flip(path, LEVEL)
        (path / "segments/00000000/notes.txt").write_text("mine")
        found = index.verify()
    assert not found.ok
    assert found.damage[0].file == LEVEL
    assert found.damage[0].documents == 40
    assert "notes.txt" in found.notes[0]
    assert "DAMAGED" in str(found)


def test_verify_finds_a_scorer_that_scores_wrong(path, monkeypatch):
    right = CpuScorer.score

    def wrong(self, request, scores, rows=None):
        right(self, request, scores, rows)
        scores += 0.01

    with MetaIndex.open(path) as index:
        assert index.verify(sample=20).sampled == 20
        monkeypatch.setattr(CpuScorer, "score", wrong)
        found = index.verify(sample=20)
    assert not found.ok
    assert "cpu" in found.damage[0].file
    assert found.damage[0].documents == 20


def test_verify_in_memory():
    index = MetaIndex()
    assert index.verify().ok
    index.add(documents())
    assert index.verify(sample=3).sampled == 3


def test_verify_beside_a_writer(path):
    """On one handle, and on a reader of an older commit."""
    done = threading.Event()
    with MetaIndex.open(path) as old, MetaIndex.open(path, "r+") as index:

        def write():
            for number in range(30):
                index.add(documents(3, number))
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        found = []
        while not done.is_set() or not found:
            found += [old.verify(sample=5), index.verify(sample=5)]
        writer.join()
        assert all(one.ok for one in found), [str(one) for one in found if not one.ok]


def test_forge_makes_a_good_index_of_a_good_one(path):
    """The helper of these tests changes nothing where nothing is wrong."""
    before = sqlite3.connect(path / "catalog.sqlite").execute("SELECT * FROM documents").fetchall()
    forge(path)
    assert sqlite3.connect(path / "catalog.sqlite").execute("SELECT * FROM documents").fetchall() == before
    assert kept(path)
