"""What goes into a store comes out of it: in memory, on disk, after merges, removals and a save."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from metaindex.errors import DuplicateIdError, UnknownIdError
from metaindex.storage import folder
from metaindex.storage.merge import FAN
from metaindex.storage.store import Store
from metaindex.types import Levels
from tests.storage.support import CODECS, add, assert_holds, content, full, ragged, schema, vectors


@pytest.fixture(params=["memory", "disk"])
def where(request, tmp_path):
    """The ``path`` argument of a new store."""
    return None if request.param == "memory" else tmp_path / "index"


def cut(tokens, lengths):
    return [document[:length] for document, length in zip(tokens, lengths)]


@pytest.mark.parametrize(
    ("codec", "early"), [*((codec, None) for codec in CODECS), ("float16", "int8"), ("float32", "float16")]
)
@pytest.mark.parametrize("uniform", [True, False], ids=["uniform", "ragged"])
def test_every_codec(where, tmp_path, codec, early, uniform):
    tokens = vectors(30)
    lengths = full(30) if uniform else ragged(30)
    store = Store.create(schema(codec=codec, early=early), where)
    add(store, tokens, lengths)
    assert_holds(store, range(30), cut(tokens, lengths))
    store.save(tmp_path / "saved")
    store.close()
    with_checksums = Store.open(tmp_path / "saved", verify=True)
    assert_holds(with_checksums, range(30), cut(tokens, lengths))
    if where is not None:
        assert_holds(Store.open(where, verify=True), range(30), cut(tokens, lengths))


@pytest.mark.parametrize("kept", [{}, {"codec": "2:int8,float16"}, {"early": "int8"}], ids=["one", "bands", "early"])
@pytest.mark.parametrize("uniform", [True, False], ids=["uniform", "ragged"])
def test_many_small_adds_merge(where, uniform, kept):
    count = 200 if where is None else 70
    tokens = vectors(count)
    lengths = full(count) if uniform else ragged(count)
    store = Store.create(schema(**kept), where)
    for row in range(count):
        add(store, tokens[row : row + 1], lengths[row : row + 1])
    assert len(store.snapshot.segments) < 4 * FAN
    assert_holds(store, range(count), cut(tokens, lengths))
    for segment in store.snapshot.segments:
        assert (np.diff(segment.lengths) <= 0).all()
        for level in segment.levels:
            assert level.rows == np.count_nonzero(segment.lengths > level.start)


def test_text_ids_and_metadata(where, tmp_path):
    ids = [f"ключ {number}" for number in range(12)] + [""]
    described = [{"n": number, "s": "é"} if number % 2 else None for number in range(13)]
    store = Store.create(schema(), where)
    add(store, vectors(13), ragged(13), ids, described)
    store.save(tmp_path / "saved")
    for one in (store, Store.open(tmp_path / "saved", verify=True)):
        assert one.schema.id_kind == "text"
        assert_holds(one, ids, cut(vectors(13), ragged(13)))
        rows = one.locate(one.snapshot, [ids[3], "absent", ids[12], ids[0]])
        assert rows[1] == -1
        assert one.snapshot.ids_at(rows[[0, 2, 3]]).tolist() == [ids[3], ids[12], ids[0]]
        assert one.metadata(one.snapshot, rows[[0, 2, 3]]) == [described[3], None, described[0]]


def test_remove_and_add_again(where, tmp_path):
    store = Store.create(schema(), where)
    add(store, vectors(10), ragged(10))
    before = store.snapshot
    with store.transaction() as transaction:
        transaction.remove([3, 7])
        assert transaction.known([2, 3, 7, 99]).tolist() == [2]
        transaction.add(vectors(1, seed=9), full(1), [7])
        assert transaction.known([3, 7]).tolist() == [7]
    documents = cut(vectors(10), ragged(10))
    left = [number for number in range(10) if number not in (3, 7)]
    expected = [documents[number] for number in left] + [vectors(1, seed=9)[0]]
    assert_holds(store, [*left, 7], expected)
    assert_holds(store, range(10), documents, before)
    assert len(store.snapshot) == 9
    assert store.locate(store.snapshot, [3]).tolist() == [-1]
    store.save(tmp_path / "saved")
    saved = Store.open(tmp_path / "saved", verify=True)
    assert saved.snapshot.rows == 9, "a save leaves removed documents out"
    assert_holds(saved, [*left, 7], expected)
    if where is not None:
        store.close()
        assert_holds(Store.open(where, verify=True), [*left, 7], expected)


def test_next_id_goes_on_above_all_that_were_used(where, tmp_path):
    store = Store.create(schema(), where)
    add(store, vectors(2), None, [5, 40])
    with store.transaction() as transaction:
        transaction.remove([40])
        assert transaction.next_id == 41
    store.save(tmp_path / "saved")
    with Store.open(tmp_path / "saved", "r+").transaction() as transaction:
        assert transaction.next_id == 41


def test_merges_drop_removed_documents(where):
    store = Store.create(schema(), where)
    for _ in range(3):
        add(store, vectors(1))
    with store.transaction() as transaction:
        transaction.remove([0, 1])
    add(store, vectors(1))
    assert store.snapshot.rows == 2
    assert not len(store.snapshot.removed)
    assert [id_ for id_, _ in content(store)] == [2, 3]


def test_levels_grow(where, tmp_path):
    store = Store.create(schema(tokens=2), where)
    add(store, vectors(3, tokens=2))
    with store.transaction() as transaction:
        transaction.set_schema(replace(transaction.schema, levels=transaction.schema.levels.extended_to(7)))
        transaction.add(vectors(2, tokens=7, seed=1), np.array([3, 7], np.int32), [3, 4])
    documents = [*vectors(3, tokens=2), *cut(vectors(2, tokens=7, seed=1), [3, 7])]
    assert store.snapshot.levels == Levels((1, 2, 4, 7))
    assert [len(segment.levels) for segment in store.snapshot.segments] == [2, 4]
    assert_holds(store, range(5), documents)
    store.save(tmp_path / "saved")
    assert_holds(Store.open(tmp_path / "saved", verify=True), range(5), documents)


def test_tokens_past_a_length_are_not_kept(where):
    store = Store.create(schema(codec="int8"), where)
    add(store, np.full((4, 8, 5), 7, np.float32), np.array([1, 3, 8, 5], np.int32))
    assert [len(tokens) for _, tokens in content(store)] == [1, 3, 8, 5]


def test_duplicates_are_refused_and_change_nothing(where):
    store = Store.create(schema(), where)
    add(store, vectors(3))
    before = store.snapshot
    with pytest.raises(DuplicateIdError, match="2 stands in the index"):
        add(store, vectors(2), None, [9, 2])
    with pytest.raises(DuplicateIdError, match="8 is given twice"):
        add(store, vectors(2), None, [8, 8])
    with pytest.raises(UnknownIdError, match="77"):
        remove(store, [1, 77])
    assert store.snapshot is before
    assert_holds(store, range(3), vectors(3))


def remove(store, ids):
    with store.transaction() as transaction:
        transaction.remove(ids)


def fail_half_way(store):
    with store.transaction() as transaction:
        transaction.set_schema(replace(transaction.schema, normalize=True))
        transaction.add(vectors(2), full(2), [3, 4], ['{"a": 1}', None])
        transaction.remove([0])
        raise ZeroDivisionError


def test_an_exception_undoes_the_transaction(where):
    store = Store.create(schema(), where)
    add(store, vectors(3))
    before, schema_before = store.snapshot, store.schema
    with pytest.raises(ZeroDivisionError):
        fail_half_way(store)
    assert store.snapshot is before
    assert store.schema == schema_before
    if where is not None:
        assert os.listdir(where / "tmp") == []
        assert len(os.listdir(where / "segments")) == 1
    add(store, vectors(1, seed=4))
    assert_holds(store, range(4), [*vectors(3), *vectors(1, seed=4)])


def test_a_batch_iterator_becomes_visible_at_once(where):
    store = Store.create(schema(), where)
    with store.transaction() as transaction:
        for batch in range(9):
            transaction.add(vectors(10, seed=batch), full(10), np.arange(batch * 10, batch * 10 + 10))
            assert store.snapshot.rows == 0
    assert_holds(store, range(90), [tokens for batch in range(9) for tokens in vectors(10, seed=batch)])


def test_an_empty_transaction_commits_nothing(where):
    store = Store.create(schema(), where)
    before = store.snapshot
    with store.transaction() as transaction:
        transaction.add(vectors(0), full(0), [])
        transaction.remove([])
    assert store.snapshot is before


def test_save_splits_at_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "SAVED_SEGMENT_BYTES", 20 * 8 * 5 * 2)
    store = Store.create(schema())
    for batch in range(7):
        add(store, vectors(10, seed=batch), ragged(10, seed=batch))
    store.save(tmp_path / "saved")
    saved = Store.open(tmp_path / "saved", verify=True)
    assert 1 < len(saved.snapshot.segments) <= 4
    assert_holds(saved, range(70), [one for b in range(7) for one in cut(vectors(10, seed=b), ragged(10, seed=b))])


def test_random_ids_are_located(where):
    rng = np.random.default_rng(3)
    ids = rng.choice(10_000, 500, replace=False)
    store = Store.create(schema(tokens=1), where)
    for part in np.split(ids, 10):
        add(store, vectors(50, tokens=1), None, part)
    for asked in (ids[::-1], ids[:3], np.array([ids[0], 10_001, -5])):
        rows = store.locate(store.snapshot, asked)
        known = np.isin(asked, ids)
        assert (rows >= 0).tolist() == known.tolist()
        assert store.snapshot.ids_at(rows[known]).tolist() == asked[known].tolist()
