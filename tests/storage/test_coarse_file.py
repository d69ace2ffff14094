"""The file of a coarse stage: whatever becomes of it costs time, never answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.coarse import kinds, upkeep

pytest.importorskip("faiss", reason="faiss is not installed")

DOCUMENTS = np.random.default_rng(0).standard_normal((400, 3, 8), dtype=np.float32)
QUERIES = np.random.default_rng(1).standard_normal((5, 2, 8), dtype=np.float32)
PLAN = "coarse(nprobe=8)>50 (*,*)"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(upkeep, "FEW", 8)
    monkeypatch.setattr(kinds, "POINTS_PER_CENTROID", 2)


@pytest.fixture
def stored(tmp_path) -> Path:
    with MetaIndex(codec="float32", coarse="IVF8,Flat", path=tmp_path / "index") as index:
        index.add(DOCUMENTS)
    return tmp_path / "index"


def coarse_file(index: Path) -> Path:
    (found,) = index.rglob("coarse-*.safetensors")
    return found


def searched(path: Path, **arguments):
    """Which scorer ran first, why, and what was found."""
    with MetaIndex.open(path, **arguments) as index:
        found = index.search(QUERIES, 10, plan=PLAN)
        return found.stats[0].scorer, found.stats[0].why, found.ids.tolist()


def test_a_trusted_file_is_read_and_all_lists_find_what_the_scan_finds(stored):
    scorer, why, ids = searched(stored, trusted=True)
    assert scorer == "faiss"
    assert "400 documents" in why
    scorer, why, same = searched(stored)
    assert scorer != "faiss"
    assert "trusted=True" in why
    assert ids == same


@pytest.mark.parametrize("damage", ["removed", "cut", "flipped", "empty", "another's"])
def test_damage_costs_time_and_never_answers(stored, damage, tmp_path):
    _, _, ids = searched(stored, trusted=True)
    file = coarse_file(stored)
    data = bytearray(file.read_bytes())
    if damage == "removed":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        with MetaIndex(codec="float32", coarse="IVF8,Flat", path=tmp_path / "other") as other:
            other.add(DOCUMENTS[::-1])
        file.write_bytes(coarse_file(tmp_path / "other").read_bytes())
    scorer, why, same = searched(stored, trusted=True)
    assert scorer != "faiss"
    assert "can't be used" in why
    assert ids == same
    with MetaIndex.open(stored, "r+", trusted=True) as index:
        index.build_coarse()  # which writes it anew
    assert searched(stored, trusted=True)[::2] == ("faiss", ids)


def test_a_reader_may_build_its_own(stored):
    with MetaIndex.open(stored) as index:
        index.build_coarse()
        assert index.search(QUERIES, 10, plan=PLAN).stats[0].scorer == "faiss"


def test_what_was_added_since_is_found_beside_it(stored):
    new = 3 * QUERIES[:, :1]
    with MetaIndex.open(stored, "r+", trusted=True) as index:
        index.add(new, ids=range(1000, 1005))
        found = index.search(QUERIES, 10, plan=PLAN)
        assert all(1000 + number in ids for number, ids in enumerate(found.ids.tolist()))
        index.remove([1000])
        assert 1000 not in index.search(QUERIES, 10, plan=PLAN).ids
    assert 1001 in searched(stored, trusted=True)[2][1]


KINDS = (
    "Flat",
    "SQ8",
    "PQ4x4",
    "HNSW8",
    "HNSW8,SQ8",
    "IVF8,SQ8",
    "IVF8,PQ4x4",
    "IVF8,PQ4x4,RFlat",
    "fde(dim=16),Flat",
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind, tmp_path):
    with MetaIndex(codec="float32", coarse=kind, path=tmp_path / "index", num_threads=1) as index:
        index.add(DOCUMENTS)
        expected = index.search(QUERIES, 10, plan="coarse>50 (*,*)")
    assert expected.stats[0].scorer == "faiss"
    with MetaIndex.open(tmp_path / "index", trusted=True, num_threads=1) as index:
        found = index.search(QUERIES, 10, plan="coarse>50 (*,*)")
        assert (found.stats[0].scorer, index.memory()["coarse"]["failure"]) == ("faiss", "")
    assert found.ids.tolist() == expected.ids.tolist()
