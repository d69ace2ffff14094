"""Metadata: replaced in place, by versions of rows, so that a snapshot keeps what it saw."""

import sqlite3

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.errors import DuplicateIdError, FilterError, ReadOnlyError, ShapeError, UnknownIdError
from metaindex.storage.database import checksum
from metaindex.storage.store import Store
from tests.storage.support import add, schema, vectors


@pytest.fixture(params=["memory", "disk"])
def path(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "index"


@pytest.fixture
def index(path):
    with MetaIndex(path=path) as index:
        index.add(vectors(6), metadata=[{"n": 0}, {"n": 1}, None, {"n": 3}, {"n": 4}, None])
        yield index


def described(index):
    return {one.id: one.metadata for one in index.get(list(index))}


def test_replaces_adds_and_removes_metadata(index, path):
    before = list(index)
    assert index.update_metadata([3, 2, 0], [{"a": "ü"}, {"new": [1]}, None]) is None
    expected = {0: None, 1: {"n": 1}, 2: {"new": [1]}, 3: {"a": "ü"}, 4: {"n": 4}, 5: None}
    assert described(index) == expected
    assert list(index) == before
    if path is not None:
        with MetaIndex.open(path) as reader:
            assert described(reader) == expected


def test_a_search_finds_the_same_after_an_update(index):
    before = index.search(vectors(2, 3, seed=1), 6)
    index.update_metadata([1], [{"n": 2}])
    after = index.search(vectors(2, 3, seed=1), 6)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_text_ids(path):
    with MetaIndex(path=path) as index:
        index.add(vectors(2), ids=["a", "b"])
        index.update_metadata(["b"], [{"x": 1}])
        assert described(index) == {"a": None, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("ids", "metadata", "error", "message"),
    [
        ([1, 77], [{}, {}], UnknownIdError, "77"),
        ([1, 1], [{}, {}], DuplicateIdError, "1 is given twice"),
        ([1, 2], [{}], ShapeError, "expected 2"),
        ([1], [{}, {}], ShapeError, "expected 1"),
        (["a"], [{}], TypeError, "int ids"),
        ([1], [[]], TypeError, "metadata[0]"),
        ([1], [{"a": float("nan")}], ValueError, "metadata[0]"),
        ([1], [{"a": "x\0y"}], ValueError, "without NUL"),
        ([1], [{"a\0": 1}], ValueError, "without NUL"),
        ([1], {"a": 1}, TypeError, "list of one dict"),
        ([1], None, TypeError, "list of one dict"),
    ],
)
def test_what_does_not_fit_changes_nothing(index, ids, metadata, error, message):
    before = described(index)
    with pytest.raises(error) as refused:
        index.update_metadata(ids, metadata)
    assert message in str(refused.value)
    assert described(index) == before


def test_a_backslash_before_u0000_is_no_nul(index):
    index.update_metadata([0], [{"a": "\\u0000", "b": "\\\\u0000"}])
    assert described(index)[0] == {"a": "\\u0000", "b": "\\\\u0000"}


@pytest.mark.parametrize(("depth", "accepted"), [(500, True), (501, False)])
def test_nesting_of_metadata(index, depth, accepted):
    value = '[{ \\"'  # brackets in text count for nothing
    for _ in range(depth - 1):
        value = [value]
    if accepted:
        index.update_metadata([0], [{"a": value}])
        assert described(index)[0] == {"a": value}
    else:
        with pytest.raises(ValueError, match="at most 500 levels"):
            index.update_metadata([0], [{"a": value}])


def shown(store, snapshot):
    found = store.metadata(snapshot, snapshot.order)
    return dict(zip(snapshot.ids_at(snapshot.order).tolist(), found))


def update_then_fail(store):
    with store.transaction() as transaction:
        transaction.update_metadata([1, 2], [None, '{"other":9}'], {"other"})
        transaction.remove([77])


def test_every_snapshot_keeps_what_it_saw(path):
    store = Store.create(schema(), path)
    seen = []
    with store.transaction() as transaction:
        transaction.add(vectors(3), np.full(3, 8, np.int32), [0, 1, 2], ['{"v":0}', None, '{"v":0}'], {"v"})
        transaction.update_metadata([0, 1], ['{"v":1}', '{"v":1}'], {"v"})
        transaction.update_metadata([0], ['{"v":2}'], {"v"})
    seen.append((store.snapshot, {0: {"v": 2}, 1: {"v": 1}, 2: {"v": 0}}))
    with store.transaction() as transaction:
        transaction.update_metadata([0, 2], ['{"v":3}', None], {"v"})
        transaction.update_metadata([2], ['{"v":4}'], {"v"})
        transaction.update_metadata([1], ['{"v":5}'], {"v"})
        transaction.update_metadata([1], [None])
    seen.append((store.snapshot, {0: {"v": 3}, 1: None, 2: {"v": 4}}))
    with store.transaction() as transaction:
        transaction.update_metadata([0, 1], ['{"v":6}', '{"v":6}'], {"v"})
        transaction.remove([0, 1])
        transaction.add(vectors(1), np.full(1, 8, np.int32), [1], ['{"v":7}'], {"v"})
        transaction.update_metadata([1], ['{"v":8}'], {"v"})
    seen.append((store.snapshot, {1: {"v": 8}, 2: {"v": 4}}))
    with pytest.raises(UnknownIdError):
        update_then_fail(store)
    for number in range(20):  # merges do not touch it
        add(store, vectors(1), ids=[100 + number], metadata=[{"v": number}])
    for snapshot, expected in seen:
        assert shown(store, snapshot) == expected
    assert store._catalog.fields() == ["v"]
    store.close()


def test_the_rows_of_an_update_have_checksums(tmp_path):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(vectors(3), metadata=[{"a": 1}, {"a": 2}, None])
        index.update_metadata([0, 2], [{"ü": "é"}, {"b": [1]}])
        index.update_metadata([0], [None])
    with sqlite3.connect(tmp_path / "index" / "catalog.sqlite") as connection:
        rows = connection.execute("SELECT * FROM metadata ORDER BY sequence, created").fetchall()
        names = connection.execute("SELECT name FROM fields ORDER BY name").fetchall()
    connection.close()
    assert [row[:4] for row in rows] == [
        (0, '{"a":1}', 1, 2),
        (0, '{"ü":"é"}', 2, 3),
        (1, '{"a":2}', 1, None),
        (2, '{"b":[1]}', 2, None),
    ]
    assert all(row[4] == checksum(list(row[:4])) for row in rows)
    assert names == [("a",), ("b",), ("ü",)]


def test_save_takes_the_last_metadata_and_the_names(index, tmp_path):
    index.update_metadata([0, 1], [{"later": 1}, None])
    index.save(tmp_path / "saved")
    with MetaIndex.open(tmp_path / "saved") as saved:
        assert described(saved) == described(index)
        assert saved._store._catalog.fields() == ["later", "n"]


def test_readers_need_a_writer(tmp_path):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(vectors(1))
    with MetaIndex.open(tmp_path / "index") as reader, pytest.raises(ReadOnlyError):
        reader.update_metadata([0], [{}])


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_save_amid_a_write_knows_no_field_of_it(tmp_path, on_disk):
    index = MetaIndex(dim=4, doc_tokens=2, path=tmp_path / "index" if on_disk else None)
    index.add(np.ones((2, 2, 4)), metadata=[{"a": 1}, None])

    def batches():
        yield np.ones((1, 2, 4))
        index.save(tmp_path / "saved")
        yield np.ones((1, 2, 4))

    index.add(batches(), metadata=[{"uncommitted": 1}, None])
    with MetaIndex.open(tmp_path / "saved", verify=True) as saved:
        assert len(saved) == 2
        with pytest.raises(FilterError, match="uncommitted"):
            saved.search(np.ones((1, 4)), filter={"uncommitted": 1})
