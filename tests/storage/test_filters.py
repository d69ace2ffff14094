"""Filters by metadata: against a plain evaluator, in the catalog's indexes, beside a writer, and against hostile text."""

import json
import sqlite3
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.errors import CorruptIndexError, FilterError
from metaindex.storage.schema import Schema
from metaindex.storage.store import Store
from metaindex.storage.where import parsed, query
from tests.storage.support import add, schema, vectors

FIELDS = ["a", "b", "c.d", "é\\\n;--'"]
MISSING = object()

numbers = st.one_of(
    st.integers(-3, 3),
    st.booleans(),
    st.sampled_from([-1.5, 0.5, 2.0, 1e300, -0.0, 2.0**63, 2**63 - 1, 2**63, 2**64 + 1, -(2**63), -(2**63) - 1, 10**400]),
)
texts = st.one_of(st.sampled_from(["", "a", "ab", "B", "é", "\U0001f600", "￿", "1", "' OR 1=1 --", '"', "\\", "\n", "null"]))
scalars = st.one_of(st.none(), numbers, texts)
stored = st.one_of(scalars, st.just([1]), st.just({"a": 1}), st.just([]), st.just({}))
documents = st.one_of(st.none(), st.dictionaries(st.sampled_from(FIELDS), stored))
ranges = st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.one_of(numbers, texts))
equals = st.tuples(st.sampled_from(["$eq", "$ne"]), scalars)
lists = st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=4))
operators = st.lists(st.one_of(ranges, ranges, equals, lists), min_size=1, max_size=3).map(dict)
plain = st.dictionaries(st.sampled_from(FIELDS), st.one_of(scalars, operators), max_size=3)
filters = st.recursive(
    plain,
    lambda inner: st.builds(
        lambda fields, more: {**fields, **more},
        plain,
        st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1),
    ),
    max_leaves=6,
)


def kind(value):
    return "text" if isinstance(value, str) else "number" if isinstance(value, (int, float)) else None


def number(value):
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return value


def holds(operator, value, operand):
    """What one operator says of a stored value, by the words of the docstring of ``search``."""
    if operator == "$ne":
        return not holds("$eq", value, operand)
    if operator == "$nin":
        return not holds("$in", value, operand)
    if operator == "$in":
        return any(holds("$eq", value, one) for one in operand)
    if operator == "$eq" and operand is None:
        return value is MISSING or value is None
    if value is MISSING or kind(value) is None or kind(value) != kind(operand):
        return False
    value, operand = number(value), number(operand)
    return {
        "$eq": value == operand,
        "$gt": value > operand,
        "$gte": value >= operand,
        "$lt": value < operand,
        "$lte": value <= operand,
    }[operator]


def meets(document, condition):
    document = document or {}
    for key, value in condition.items():
        if key == "$and":
            good = all(meets(document, one) for one in value)
        elif key == "$or":
            good = any(meets(document, one) for one in value)
        else:
            given = value if isinstance(value, dict) else {"$eq": value}
            good = all(holds(operator, document.get(key, MISSING), operand) for operator, operand in given.items())
        if not good:
            return False
    return True


def found(store, condition, snapshot=None):
    snapshot = snapshot or store.snapshot
    rows = store.matching(snapshot, parsed(condition))
    assert (np.diff(rows) > 0).all()
    return sorted(snapshot.ids_at(rows).tolist())


@pytest.mark.parametrize("declared", [(), ("a", "b")])
@settings(max_examples=150, deadline=None)
@given(st.lists(documents, min_size=1, max_size=12), st.lists(filters, min_size=1, max_size=6), st.data())
def test_filters_agree_with_a_plain_evaluator(declared, described, conditions, data):
    count = len(described)
    lengths = np.array(data.draw(st.lists(st.integers(1, 8), min_size=count, max_size=count)), np.int32)
    gone = data.draw(st.sets(st.integers(0, count - 1), max_size=2))
    store = Store.create(schema(fields=declared))
    with store.transaction() as transaction:
        tokens = vectors(count)
        for row, length in zip(tokens, lengths):
            row[length:] = 0
        texts = [None if one is None else json.dumps(one, ensure_ascii=False) for one in described]
        transaction.add(tokens, lengths, np.arange(count), texts, FIELDS)
        transaction.remove(np.array(sorted(gone), np.int64))
    for condition in conditions:
        expected = [id_ for id_, one in enumerate(described) if id_ not in gone and meets(one, condition)]
        assert found(store, condition) == expected, condition
        assert found(store, condition) == expected, condition  # what was kept is the same
    store.close()


VALUES = [MISSING, None, True, -1.5, 0, 2, 2**63, "", "a", "ab", [1], {}]
PAIRS = [{"a": value, **other} for value in VALUES for other in ({}, {"b": 2}, {"b": "x"})]
DOCUMENTS = [None, *({key: value for key, value in pair.items() if value is not MISSING} for pair in PAIRS)]
OPERANDS = [None, True, -1.5, 0, 2, 2**63, "", "a", "ab"]


@pytest.mark.parametrize("declared", [(), ("a", "b")])
@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"])
def test_each_operator_on_each_kind_of_value(operator, declared):
    store = Store.create(schema(fields=declared))
    add(store, vectors(len(DOCUMENTS)), metadata=DOCUMENTS)
    with store.transaction() as transaction:
        transaction.update_metadata([1], [json.dumps(DOCUMENTS[1])], {"a", "b"})
    for operand in OPERANDS:
        if operand is None and operator[:2] in ("$g", "$l"):
            continue
        one = {"a": {operator: [operand, 0] if operator.endswith("in") else operand}}
        for condition in (
            one,
            {**one, "b": 2},
            {"$or": [one, {"b": 2}]},
            {"b": {"$ne": 2}, "$or": [one, {"a": {"$lt": 1, "$gte": -2}}]},
            {"$or": [{"b": "x", **one}, {"b": None, "a": {"$ne": "a"}}]},
        ):
            assert found(store, condition) == [id_ for id_, each in enumerate(DOCUMENTS) if meets(each, condition)], condition
    store.close()


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_every_number_equals_itself(real, whole):
    store = Store.create(schema())
    with store.transaction() as transaction:
        transaction.add(vectors(2), np.full(2, 8, np.int32), [0, 1], [json.dumps({"a": real}), json.dumps({"a": whole})], {"a"})
    assert 0 in found(store, {"a": real})
    assert 1 in found(store, {"a": {"$in": [whole]}})
    assert 0 in found(store, {"a": {"$gte": real, "$lte": real}})
    store.close()


@pytest.mark.parametrize(
    "name",
    ["a' OR 1=1 --", "x'); DROP TABLE metadata; --", "$.a", "a.b", "a[0]", "#-1", "?1", "%s", "\\", "\\u0061", "\n", "*", " "],
)
def test_names_and_values_are_never_read_as_sql(name):
    store = Store.create(schema())
    with store.transaction() as transaction:
        texts = [json.dumps({name: name, "a": 1}, ensure_ascii=False), json.dumps({"a": name}, ensure_ascii=False), None]
        transaction.add(vectors(3), np.full(3, 8, np.int32), [0, 1, 2], texts, {name, "a"})
    assert found(store, {name: name}) == [0]
    assert found(store, {name: {"$ne": name}}) == [1, 2]
    assert found(store, {"a": {"$in": [name]}}) == [1]
    assert found(store, {"a": {"$gte": name, "$lte": name}}) == [1]
    sql = query(parsed({name: name}), ()).sql
    assert name == " " or name in "?1\\*" or name not in sql
    store.close()


def test_unknown_fields_are_listed_and_none_without_metadata():
    store = Store.create(schema())
    add(store, vectors(2))
    assert found(store, {"a": 1}) == []
    assert found(store, {"a": {"$ne": 1}}) == [0, 1]
    with store.transaction() as transaction:
        names = {f"f{number:02d}" for number in range(30)}
        transaction.add(vectors(1), np.full(1, 8, np.int32), [2], [json.dumps(dict.fromkeys(names, 1))], names)
    with pytest.raises(FilterError) as refused:
        found(store, {"$or": [{"f01": 1}, {"a": 1}]})
    assert "'a'; fields are 'f00', 'f01'" in str(refused.value)
    assert str(refused.value).endswith("'f19', ...")
    store.close()


def plan(store, condition):
    asked = query(parsed(condition), store.schema.fields)
    return " | ".join(row[3] for row in store._catalog._run(f"EXPLAIN QUERY PLAN {asked.sql}", (1, *asked.values)))


@pytest.mark.parametrize(
    "condition",
    [
        {"lang": "en"},
        {"lang": {"$ne": "en"}},
        {"lang": {"$nin": ["en", "de"]}},
        {"lang": {"$in": ["en", "de"]}},
        {"lang": {"$gt": "de"}},
        {"lang": {"$lt": "de"}},
        {"lang": None},
    ],
)
def test_declared_fields_are_served_by_their_index(condition):
    store = Store.create(schema(fields=("year", "lang")))
    used = plan(store, condition)
    assert "INDEX metadata_field_1 (<expr>" in used
    assert "SCAN metadata" not in used
    store.close()


@pytest.mark.parametrize("condition", [{"year": {"$gte": 1, "$lt": 2.5}}, {"year": 2**70}, {"year": {"$lte": 3}, "a": 1}])
def test_numbers_are_served_by_their_index(condition):
    store = Store.create(schema(fields=("year", "lang")))
    assert "SEARCH metadata USING" in plan(store, condition)
    assert "INDEX metadata_field_0 (<expr>" in plan(store, condition)
    store.close()


@pytest.mark.parametrize("condition", [{"lang": "en"}, {"year": {"$gte": 1, "$lt": 2.5}}])
def test_an_index_answers_without_the_rows_of_the_table(condition):
    """To look up each row by its key took most of the time, and reads nearly all pages when one in a hundred is kept."""
    store = Store.create(schema(fields=("year", "lang")))
    asked = query(parsed(condition), store.schema.fields)
    steps = {step[1] for step in store._catalog._run(f"EXPLAIN {asked.sql}", (1, *asked.values))}
    assert "ResultRow" in steps
    assert "NotFound" not in steps
    store.close()


def test_or_of_declared_fields_is_served_by_both_indexes():
    store = Store.create(schema(fields=("year", "lang")))
    used = plan(store, {"$or": [{"year": 1}, {"lang": "en"}]})
    assert "metadata_field_0" in used
    assert "metadata_field_1" in used
    store.close()


def test_the_largest_filters_that_are_taken_run():
    store = Store.create(schema(fields=("a",)))
    names = [f"f{number}" for number in range(200)]
    with store.transaction() as transaction:
        transaction.add(vectors(2), np.full(2, 8, np.int32), [0, 1], ['{"a":1}', None], [*names, "a"])
    assert found(store, {"$or": [{"a": number} for number in range(400)]}) == [0]
    assert found(store, {"$and": [{name: {"$ne": 1.5}} for name in names]}) == [0, 1]
    assert found(store, {"a": {"$in": list(range(10_000))}}) == [0]
    deep = {"a": 1}
    for _ in range(10):
        deep = {"$and": [{"$or": [deep, {"a": {"$ne": 5}}]}, {"a": {"$gte": 1}}]}
    assert found(store, deep) == [0]
    store.close()


def test_readers_keep_their_snapshot_while_the_writer_goes_on(tmp_path):
    path = tmp_path / "index"
    with MetaIndex(path=path, fields=["v"]) as writer:
        writer.add(vectors(4), metadata=[{"v": 0}, {"v": 0}, {"v": 1}, None])
        with MetaIndex.open(path) as reader:
            one, old = writer._store.snapshot, reader._store.snapshot
            writer.update_metadata([0, 2, 3], [{"v": 1}, None, {"v": 0}])
            writer.remove([1])
            writer.upsert(vectors(1), [0], [{"v": 7}])
            for store, snapshot in ((writer._store, one), (reader._store, old)):
                assert found(store, {"v": 0}, snapshot) == [0, 1]
                assert found(store, {"v": {"$ne": 0}}, snapshot) == [2, 3]
            reader.refresh()
            for store in (writer._store, reader._store):
                assert found(store, {"v": 0}) == [3]
                assert found(store, {"v": 7}) == [0]
                assert found(store, {"v": None}) == [2]


def test_a_filter_beside_an_open_transaction_sees_the_commit_before():
    store = Store.create(schema(fields=("v",)))
    add(store, vectors(3), metadata=[{"v": 0}] * 3)
    seen = []
    with store.transaction() as transaction:
        transaction.update_metadata([0], ['{"v":1}'], {"v"})
        transaction.remove([1])
        thread = threading.Thread(target=lambda: seen.append((found(store, {"v": 0}), found(store, {"v": {"$ne": 0}}))))
        thread.start()
        thread.join()
    assert seen == [([0, 1, 2], [])]
    assert found(store, {"v": 0}) == [2]
    store.close()


def test_kept_matches_are_bounded():
    store = Store.create(schema())
    with store.transaction() as transaction:
        transaction.add(vectors(3), np.full(3, 8, np.int32), [0, 1, 2], ['{"v":1}'] * 3, {"v"})
    for number in range(200):
        found(store, {"v": {"$lt": number}})
    matches = store.snapshot.matches
    assert len(matches._found) == 64
    assert matches.nbytes == 64 * 3 * 8
    store.close()


def test_search_and_remove_by_metadata(tmp_path):
    with MetaIndex(path=tmp_path / "index", fields=["lang", "year"]) as index:
        index.add(vectors(100), metadata=[{"lang": "en" if n % 20 else "de", "year": 2000 + n} for n in range(100)])
        queries = vectors(3, 4, seed=1)
        for condition in ({"lang": "de"}, {"lang": "en", "year": {"$gte": 2050}}):
            ids = [n for n in range(100) if meets({"lang": "en" if n % 20 else "de", "year": 2000 + n}, condition)]
            by_field, by_ids = (index.search(queries, 10, filter=one) for one in (condition, ids))
            np.testing.assert_array_equal(by_field.ids, by_ids.ids)
            np.testing.assert_array_equal(by_field.scores, by_ids.scores)
        assert index.remove(filter={"year": {"$lt": 2090}, "lang": "en"}) == 85
        assert index.remove(filter={"year": 1}) == 0
        assert index.remove(filter=[99, 98, 12345]) == 2
        assert index.remove(filter=np.arange(len(index)) == 0) == 1
        assert list(index) == [20, 40, 60, 80, *range(90, 98)]
        index.save(tmp_path / "saved")
    with MetaIndex.open(tmp_path / "saved", "r+") as saved:
        assert saved.schema.fields == ("lang", "year")
        assert "metadata_field_0" in plan(saved._store, {"lang": "de"})
        assert found(saved._store, {"lang": "de"}) == [20, 40, 60, 80]
        with pytest.raises(FilterError, match="'lang', 'year'"):
            saved.search(queries, filter={"nope": 1})


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX metadata_field_1 ON metadata (json_extract(fields, '$.b'))",
        "CREATE INDEX other ON metadata (created)",
        "DROP INDEX metadata_field_0",
        "CREATE VIEW v AS SELECT * FROM metadata",
        "CREATE TRIGGER t AFTER INSERT ON metadata BEGIN DELETE FROM documents; END",
    ],
)
def test_a_catalog_with_other_indexes_is_refused(tmp_path, sql):
    MetaIndex(path=tmp_path / "index", fields=["a"]).close()
    connection = sqlite3.connect(tmp_path / "index" / "catalog.sqlite")
    connection.execute(sql)
    connection.commit()
    connection.close()
    with pytest.raises(CorruptIndexError, match="its tables are not those of an index"):
        MetaIndex.open(tmp_path / "index")


@pytest.mark.parametrize(
    "fields",
    [["a b"], ["a'"], ["1a"], [""], ["a" * 65], ["a", "a"], [1], ["é"], [f"f{n}" for n in range(33)], ["a\n"], ["a\0"]],
)
def test_names_that_can_not_be_declared(fields, tmp_path):
    with pytest.raises(ValueError, match="fields: expected at most 32 different names"):
        MetaIndex(fields=fields, path=tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(CorruptIndexError):
        Schema.from_json(json.dumps({**json.loads(schema().to_json()), "fields": fields}))


@pytest.mark.parametrize("fields", ["lang", b"lang", 5])
def test_fields_are_a_list(fields):
    with pytest.raises(TypeError, match="fields: expected a list of names"):
        MetaIndex(fields=fields)
