"""Every kind of coarse stage against the plain inner product of what stands for documents and queries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from metaindex import MetaIndex
from metaindex.coarse import kinds, library, upkeep
from metaindex.coarse.stage import Ready
from metaindex.coarse.vectors import stored_tokens
from metaindex.errors import BackendError, MissingDependencyError
from metaindex.storage.snapshot import Snapshot
from tests.tolerances import COARSE_INNER_PRODUCT

pytest.importorskip("faiss", reason="faiss is not installed")
DIM, TOKENS, DOCUMENTS = 16, 4, 700
ALL = {"nprobe": 16, "efSearch": DOCUMENTS, "k_factor": 20}
# By factory string, the least share of the true best that has to be found, with ``ALL`` of what can be searched searched. Codes
# of four bits for two numbers each tell little; graphs by inner product miss what lies in nobody's neighbourhood.
KINDS = {
    "Flat": 1.0,
    "SQfp16": 0.98,
    "SQ8": 0.9,
    "PQ8x4": 0.3,
    "PQ8x4fs": 0.3,
    "RQ4x4": 0.15,
    "HNSW16": 0.9,
    "HNSW16,SQ8": 0.85,
    "IVF16,Flat": 1.0,
    "IVF16,SQ8": 0.9,
    "IVF16,PQ8x4": 0.3,
    "IVF16,PQ8x4fs": 0.3,
    "IVF16,RQ4x4": 0.15,
    "IVF16_HNSW8,Flat": 0.9,
    "IVF16,PQ8x4,RFlat": 0.95,
    "PCA8,IVF16,Flat": 0.3,
    "RR16,Flat": 0.98,
    "fde(repetitions=8,bits=2,dim=256),Flat": 1.0,
    "fde(repetitions=4,bits=2,inner=8,dim=0),IVF16,Flat": 1.0,
}
SELECTORS = {
    kind: not kind.endswith(("RQ4x4", "PQ8x4", "PQ8x4fs")) or kind in ("IVF16,PQ8x4", "IVF16,PQ8x4fs") for kind in KINDS
}

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few documents are enough to build of; FAISS then warns of clusters that it can't fill well."""
    monkeypatch.setattr(upkeep, "FEW", 8)
    monkeypatch.setattr(kinds, "POINTS_PER_CENTROID", 2)


def documents(count: int = DOCUMENTS, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((t, DIM), dtype=np.float32) for t in rng.integers(1, TOKENS + 1, count)]


def made(kind: str, codec: str = "float16", **arguments: object) -> MetaIndex:
    index = MetaIndex(DIM, TOKENS, coarse=kind, codec=codec, num_threads=1, **arguments)  # type: ignore[arg-type]
    index.add(documents())
    return index


def queries(count: int = 6) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Queries [B, R, d] and their lengths: zeros past them."""
    rng = np.random.default_rng(9)
    tokens, lengths = rng.standard_normal((count, 3, DIM), dtype=np.float32), rng.integers(1, 4, count).astype(np.int32)
    tokens[np.arange(3) >= lengths[:, None]] = 0
    return tokens, lengths


def ready(index: MetaIndex, snapshot: Snapshot | None = None, count: int = 30, **more: bool) -> Ready:
    assert index._coarse is not None
    found = index._coarse.ready(snapshot or index._store.snapshot, count, **more)
    assert isinstance(found, Ready), found
    return found


def expected(index: MetaIndex, found: Ready, snapshot: Snapshot, tokens: NDArray, lengths: NDArray) -> NDArray[np.float32]:
    """The inner products [B, rows] in plain numpy; -inf where no document stands."""
    most = found.vectors.tokens or TOKENS
    stored = found.vectors.documents(*stored_tokens(snapshot, np.arange(snapshot.rows), most, DIM))
    scores = found.vectors.queries(tokens, lengths) @ stored.T
    scores[:, snapshot.removed] = -np.inf
    return np.asarray(scores)


def values(found: Ready) -> dict[str, int]:
    return {name: ALL[name] for name in found.filled.defaults if name in ALL}


def recall(rows: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    """The share of the true best that was found, by score, so that ties don't count as misses."""
    best = np.sort(scores, axis=1)[:, ::-1][:, : rows.shape[1]]
    found = np.where(rows >= 0, np.take_along_axis(scores, rows, axis=1), -np.inf)
    return float((found >= best[:, -1:] - COARSE_INNER_PRODUCT).mean())


def distinct(rows: NDArray[np.int64]) -> Iterator[set[int]]:
    for each in rows:
        known = each[each >= 0].tolist()
        assert len(set(known)) == len(known)
        yield set(known)


@every_kind
@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16", "int8"])
def test_it_finds_what_the_inner_product_finds(kind, codec):
    index = made(kind, codec)
    found, snapshot = ready(index), index._store.snapshot
    tokens, lengths = queries()
    rows = found.candidates(tokens, lengths, 30, None, values(found))
    scores = expected(index, found, snapshot, tokens, lengths)
    assert all(len(each) == 30 for each in distinct(rows))
    assert recall(rows, scores) >= KINDS[kind]


@every_kind
def test_what_is_removed_or_filtered_out_is_never_proposed(kind):
    index = made(kind)
    rng = np.random.default_rng(3)
    gone = rng.choice(DOCUMENTS, 300, replace=False)
    index.remove(gone)
    snapshot = index._store.snapshot
    tokens, lengths = queries()
    found = ready(index, filtered=True)
    assert len(found.places.sequence) == DOCUMENTS  # they are still in the FAISS index
    for share in (1.0, 0.5, 0.05, 0.0):
        allowed = np.ones(snapshot.rows, bool) if snapshot.alive is None else snapshot.alive.copy()
        allowed &= rng.random(snapshot.rows) <= share
        rows = found.candidates(tokens, lengths, 30, allowed, values(found))
        here = min(30, int(allowed.sum()))
        for each in distinct(rows):
            assert allowed[list(each)].all()
            assert len(each) == here or found.filled.is_graph or "HNSW" in kind
    rows = found.candidates(tokens, lengths, 30, None, values(found))
    scores = expected(index, found, snapshot, tokens, lengths)
    assert not set(snapshot.removed).intersection(*distinct(rows))
    assert recall(rows, scores) >= KINDS[kind] - 0.1


@every_kind
def test_whether_it_takes_selectors_is_known_from_trying(kind):
    assert ready(made(kind)).filled._selects == SELECTORS[kind]


@every_kind
def test_an_older_snapshot_is_searched_as_it_was(kind):
    index = made(kind)
    before = index._store.snapshot
    index.remove(range(200))
    index.add(documents(300, seed=1), ids=range(1000, 1300))  # more than an eighth: the FAISS index gets them
    index.remove(range(1000, 1100))
    tokens, lengths = queries()
    for snapshot in (before, index._store.snapshot):
        found = ready(index, snapshot)
        rows = found.candidates(tokens, lengths, 30, None, values(found))
        scores = expected(index, found, snapshot, tokens, lengths)
        scores[:, found.unseen] = -np.inf
        for each in distinct(rows):
            assert not each & set(snapshot.removed.tolist())
        assert recall(rows, scores) >= KINDS[kind] - 0.1
    assert not len(ready(index, before).unseen)
    assert len(ready(index).places.sequence) == 1000


@every_kind
def test_asking_for_more_than_there_are_gives_all(kind):
    index = made(kind)
    tokens, lengths = queries(2)
    found = ready(index)
    rows = found.candidates(tokens, lengths, DOCUMENTS + 50, None, values(found))
    assert rows.shape == (2, DOCUMENTS + 50)
    for each in distinct(rows):
        assert len(each) == DOCUMENTS or found.filled.is_graph or "HNSW" in kind


@every_kind
def test_parameters_that_are_listed_can_be_set(kind):
    index = made(kind)
    found = ready(index)
    tokens, lengths = queries(2)
    for name, default in found.filled.defaults.items():
        try:
            rows = found.candidates(tokens, lengths, 5, None, {name: max(1, default)})
        except BackendError as error:  # what FAISS lists for all kinds with lists, and one of them takes as 0 only
            if kind != "IVF16,PQ8x4fs" or not str(error).startswith("FAISS can't search"):
                raise
            continue
        assert rows.shape == (2, 5)
    assert kinds.wrong_parameter(found.filled.index, "nprobes", 3) is not None


@every_kind
def test_any_number_of_threads_finds_the_same(kind):
    index = made(kind)
    found = ready(index)
    tokens, lengths = queries(20)
    one, two = (found.candidates(tokens, lengths, 20, None, values(found), threads) for threads in (1, 2))
    assert (np.sort(one) == np.sort(two)).all()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("HNSW16_PQ8", "compares by distance"),
        ("LSH", "can't make"),
        ("NSG16", "can't make"),
        ("PQ7", "multiple of the number of subquantizers"),
        ("IDMap,Flat", "ids of its own"),
        ("IVF16", "could not parse"),
    ],
)
def test_what_can_not_serve_is_refused_at_creation_with_the_reason(kind, reason):
    with pytest.raises(ValueError, match="coarse: ") as refused:
        MetaIndex(DIM, TOKENS, coarse=kind)
    assert reason in str(refused.value)


def test_where_training_fails_a_search_says_so_and_does_without():
    index = made("PCA32,Flat")  # more dimensions than there are, which FAISS notices late
    assert len(index) == DOCUMENTS
    query = np.ones((1, DIM), np.float32)
    found = index.search(query, 5, candidates=50)
    assert "could not be kept in step" in found.stats[0].why
    assert found.plan.startswith("(1,1)>50")
    with pytest.raises(BackendError, match="FAISS can't build PCA32,Flat"):
        index.build_coarse()


@pytest.mark.parametrize("kind", ["HNSW0", "HNSW1", "HNSW1,Flat", "HNSW1,SQ8", "PCA8,HNSW1", "IVF4_HNSW1,Flat", "HNSW1025"])
def test_graphs_of_too_few_or_too_many_links_are_refused_before_faiss_builds_one(kind):
    """FAISS ends the process where there are fewer than two: so does this test where that is not refused."""
    with pytest.raises(ValueError, match="expected HNSW2 to HNSW1024, got"):
        MetaIndex(DIM, coarse=kind)


def test_graphs_of_the_fewest_links_can_be_built():
    assert made("HNSW2").memory()["coarse"]["documents"] == DOCUMENTS


@pytest.mark.parametrize("kind", ["PQ3", "fde(dim=10),PQ3", "HNSW1", "IVF4,PQ5x4"])
def test_a_kind_that_the_first_documents_show_to_be_impossible_is_refused_with_them(kind, tmp_path):
    index = MetaIndex(coarse=kind, path=tmp_path / "index")
    for write in (index.add, index.upsert):
        with pytest.raises(ValueError, match="coarse: "):
            write(documents(20), ids=range(20))
    assert len(index) == 0
    assert index.schema.dim is None


def test_without_faiss_documents_can_be_added(monkeypatch):
    index = MetaIndex(coarse="PQ3")
    monkeypatch.setattr(library, "load", _missing)
    assert len(index.add(documents(20))) == 20


def _missing():
    raise MissingDependencyError("the coarse stage needs FAISS")
