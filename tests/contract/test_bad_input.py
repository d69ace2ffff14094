"""Bad input: every row of the table in docs/conventions.md, with every scorer. Nothing changes, nothing is lost."""

import numpy as np
import pytest

import metaindex
from metaindex import MetaIndex, errors
from metaindex.errors import DuplicateIdError, FilterError, NonFiniteError, PlanError, ShapeError, UnknownIdError
from tests.contract.scorers import ON_GPU

T, R, D = 8, 4, 16


@pytest.fixture(params=["cpu", "reference", *(pytest.param(name, marks=pytest.mark.gpu) for name in ON_GPU if ":" not in name)])
def scorer(request):
    return request.param


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((20, T, D), dtype=np.float32)


@pytest.fixture
def query():
    return np.random.default_rng(1).standard_normal((R, D), dtype=np.float32)


@pytest.fixture
def index(vectors):
    index = MetaIndex(dim=D, doc_tokens=T, query_tokens=R)
    index.add(vectors)
    return index


def unchanged(index, query, scorer, call, error, message):
    """``call`` raises ``error`` whose one line holds ``message``, and the index answers as before."""
    before = index.search(query, 20, scorer=scorer)
    with pytest.raises(error) as refused:
        call()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    after = index.search(query, 20, scorer=scorer)
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.scores, before.scores)
    assert len(index) == 20


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((T, D), "got (8, 16); add a batch axis"),
        ((D,), "got (16,)"),
        ((2, 2, T, D), "got (2, 2, 8, 16)"),
        ((3, T + 1, D), "T <= 8"),
        ((3, T, D + 1), "d = 16"),
        ((3, 0, D), "got (3, 0, 16)"),
    ],
)
def test_documents_of_the_wrong_shape(index, query, scorer, shape, message):
    unchanged(index, query, scorer, lambda: index.add(np.zeros(shape, np.float32)), ShapeError, message)


def test_an_empty_document_in_a_list(index, query, scorer, vectors):
    bad = [vectors[0], vectors[1][:0]]
    unchanged(index, query, scorer, lambda: index.add(bad), ShapeError, "doc_vectors[1]: expected at least one token")


def test_a_failure_in_a_later_batch_undoes_the_earlier_ones(index, query, scorer, vectors):
    batches = iter([vectors, vectors[:, :, :5]])
    unchanged(index, query, scorer, lambda: index.add(batches), ShapeError, "d = 16")
    assert index.add(vectors[:1]).tolist() == [20]


def test_the_first_batch_decides_what_later_ones_must_be(vectors):
    index = MetaIndex()
    with pytest.raises(ShapeError, match="d = 16"):
        index.add(iter([vectors, vectors[:, :, :5]]))
    assert len(index) == 0
    assert index.schema.dim is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((D,), "got (16,)"),
        ((R + 1, D), "R <= 4"),
        ((R, D - 1), "d = 16"),
        ((0, D), "(1, 0, 16)"),
        ((1, 1, R, D), "got (1, 1, 4, 16)"),
    ],
)
def test_queries_of_the_wrong_shape(index, query, scorer, shape, message):
    unchanged(index, query, scorer, lambda: index.search(np.zeros(shape, np.float32)), ShapeError, message)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e5])
def test_numbers_that_are_not_finite_in_the_codec(index, query, scorer, vectors, bad):
    vectors[2, 3, 4] = bad
    unchanged(index, query, scorer, lambda: index.add(vectors), NonFiniteError, "got 1 others, first at (2, 3, 4)")
    query = query.copy()
    query[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"first at \(0, 1, 2\)"):
        index.search(query, scorer=scorer)


def test_a_float64_beyond_float32(index, query, scorer, vectors):
    large = vectors.astype(np.float64)
    large[0, 0, 0] = 1e300
    unchanged(index, query, scorer, lambda: index.add(large), NonFiniteError, "first at (0, 0, 0)")


def test_a_zero_vector_scores_zero(index, query, scorer):
    (id_,) = index.add(np.zeros((1, T, D), np.float32))
    assert index.score(query, [id_], scorer=scorer).tolist() == [[0.0]]
    assert not np.isnan(index.search(query, 21, scorer=scorer).scores).any()
    assert (index.search(np.zeros((R, D), np.float32), 5, scorer=scorer).scores == 0).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int8, bool, np.complex64, object])
def test_numbers_that_are_no_floats(index, query, scorer, vectors, dtype):
    with np.errstate(all="ignore"):
        bad = vectors.astype(dtype)
    unchanged(index, query, scorer, lambda: index.add(bad), TypeError, "expected float16, float32, float64")
    unchanged(index, query, scorer, lambda: index.search(bad), TypeError, "expected float16, float32, float64")


@pytest.mark.parametrize("bad", [None, "text", 7, {"a": 1}])
def test_what_is_no_array(index, query, scorer, bad):
    unchanged(index, query, scorer, lambda: index.add(bad), TypeError, "expected")


def test_memory_layouts_make_no_difference(vectors, query, scorer, tmp_path):
    def answer(documents, asked):
        index = MetaIndex()
        index.add(documents)
        return index.search(asked, 20, scorer=scorer)

    expected = answer(vectors, query)
    wide = np.zeros((40, T, 2 * D), np.float32)
    wide[::2, :, ::2] = vectors
    np.save(tmp_path / "v.npy", vectors)
    read_only = vectors.copy()
    read_only.flags.writeable = False
    layouts = {
        "float64": vectors.astype(np.float64),
        "big-endian": vectors.astype(">f4"),
        "strided": wide[::2, :, ::2],
        "fortran": np.asfortranarray(vectors),
        "read-only": read_only,
        "memory-mapped": np.load(tmp_path / "v.npy", mmap_mode="r"),
    }
    for name, layout in layouts.items():
        found = answer(layout, query.astype(">f8") if name == "big-endian" else query)
        np.testing.assert_array_equal(found.ids, expected.ids, err_msg=name)
        np.testing.assert_array_equal(found.scores, expected.scores, err_msg=name)


def test_nothing_to_add_and_nothing_to_find(index, query, scorer):
    assert index.add(np.empty((0, T, D), np.float32)).tolist() == []
    assert index.add([]).tolist() == []
    assert index.add(iter([])).tolist() == []
    scores, ids = index.search(query, 25, scorer=scorer)
    assert ids.shape == scores.shape == (1, 25)
    assert (ids[0, 20:] == -1).all()
    assert (scores[0, 20:] == -np.inf).all()
    empty = MetaIndex()
    scores, ids = empty.search(query, 3, budget=(2, 2), scorer=scorer)
    assert ids.tolist() == [[-1, -1, -1]]
    assert scores.tolist() == [[-np.inf] * 3]
    scores, ids = index.search(np.empty((0, R, D), np.float32), 3, scorer=scorer)
    assert ids.shape == scores.shape == (0, 3)


def test_text_ids_are_padded_with_none(vectors, query, scorer):
    index = MetaIndex()
    index.add(vectors[:2], ids=["b", "a"])
    _, ids = index.search(query, 3, scorer=scorer)
    assert ids.dtype == object
    assert set(ids[0, :2]) == {"a", "b"}
    assert ids[0, 2] is None


@pytest.mark.parametrize(
    ("k", "error"),
    [(0, ValueError), (-1, ValueError), (1.0, TypeError), ("3", TypeError), (True, TypeError), (None, TypeError)],
)
def test_k(index, query, scorer, k, error):
    unchanged(index, query, scorer, lambda: index.search(query, k, scorer=scorer), error, "k: expected")


@pytest.mark.parametrize(
    ("budget", "error"), [(0, ValueError), ((5, 1), ValueError), ((1, 9), ValueError), ((0, 1), ValueError), (1.5, TypeError)]
)
def test_budgets(index, query, scorer, budget, error):
    unchanged(index, query, scorer, lambda: index.search(query, budget=budget, scorer=scorer), error, "budget")


@pytest.mark.parametrize(
    ("argument", "value"),
    [("candidates", 0), ("candidates", 3), ("plan", "(1,1)>3 (4,8)"), ("plan", "(9,9)"), ("plan", "nonsense")],
)
def test_plans_that_can_not_run(index, query, scorer, argument, value):
    unchanged(
        index, query, scorer, lambda: index.search(query, 5, scorer=scorer, **{argument: value}), ValueError, argument[:4]
    )


def test_a_plan_beside_a_budget(index, query, scorer):
    unchanged(
        index, query, scorer, lambda: index.search(query, budget=2, plan="(1,1)", scorer=scorer), PlanError, "give it alone"
    )


def test_duplicate_ids(index, query, scorer, vectors):
    unchanged(index, query, scorer, lambda: index.add(vectors[:2], ids=[30, 30]), DuplicateIdError, "30 is given twice")
    unchanged(
        index,
        query,
        scorer,
        lambda: index.add(vectors[:2], ids=[30, 4]),
        DuplicateIdError,
        "4 stands in the index already; upsert",
    )


def test_upsert_replaces(index, query, scorer, vectors):
    index.upsert(-vectors[:1], ids=[4])
    assert len(index) == 20
    np.testing.assert_allclose(index.get([4])[0].tokens, -vectors[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1], ShapeError, "ids: expected"),
        ([100, 101, 102], ShapeError, "ids: expected 2"),
        ([[1], [2]], TypeError, "ids: expected all integers or all text"),
        (np.zeros((2, 1), np.int64), ShapeError, "ids: expected (N,)"),
        ([1.0, 2.0], TypeError, "got float"),
        ([True, False], TypeError, "got bool"),
        ([100, "a"], TypeError, "got int, str"),
        (["a", "b"], TypeError, "this index has int ids"),
        ([-1, 5], ValueError, "from 0 to 2**63 - 1"),
        ([2**63, 100], ValueError, "from 0 to 2**63 - 1"),
        ("ab", TypeError, "got str"),
    ],
)
def test_ids_that_are_none(index, query, scorer, vectors, ids, error, message):
    unchanged(index, query, scorer, lambda: index.add(vectors[:2], ids=ids), error, message)


def test_text_ids_that_are_too_long_or_no_text(vectors, query, scorer):
    index = MetaIndex()
    with pytest.raises(ValueError, match="at most 1,024 bytes"):
        index.add(vectors[:1], ids=["x" * 1025])
    with pytest.raises(ValueError, match="UTF-8"):
        index.add(vectors[:1], ids=["\ud800"])
    assert len(index) == 0
    index.add(vectors[:1], ids=["\N{SNOWMAN}" * 341])
    with pytest.raises(TypeError, match="text ids, so every document needs one"):
        index.add(vectors[:1])


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ([{}], ShapeError, "metadata: expected"),
        ([{}, {}, {}], ShapeError, "metadata: expected 2"),
        ({"a": 1}, TypeError, "one dict for each document"),
        ([{}, 7], TypeError, "metadata[1]"),
        ([{1: 2}, {}], TypeError, "text keys"),
        ([{"a": float("nan")}, {}], ValueError, "metadata[0]"),
        ([{"a": {1, 2}}, {}], TypeError, "metadata[0]: expected JSON"),
    ],
)
def test_metadata_that_is_none(index, query, scorer, vectors, metadata, error, message):
    unchanged(index, query, scorer, lambda: index.add(vectors[:2], metadata=metadata), error, message)


def test_unknown_ids(index, query, scorer):
    calls = {
        "remove": lambda: index.remove([3, 77]),
        "get": lambda: index.get([3, 77]),
        "explain": lambda: index.explain(query, 77),
        "score": lambda: index.score(query, [3, 77]),
        "rerank": lambda: index.rerank(query, [3, 77]),
    }
    for call in calls.values():
        unchanged(index, query, scorer, call, UnknownIdError, "77 not in the index")
        with pytest.raises(KeyError):
            call()
    with pytest.raises(UnknownIdError, match="20, 21, 22, 23, 24 and 5 more"):
        index.get(range(20, 30))
    assert index.remove([3, 77], missing="ignore") == 1
    assert len(index.get([4, 77], missing="ignore")) == 1
    with pytest.raises(ValueError, match="missing"):
        index.remove([78], missing="perhaps")


def test_ids_of_the_other_kind(index, query, scorer):
    calls = [
        lambda: index.get(["a"]),
        lambda: index.remove(["a"]),
        lambda: index.explain(query, "a"),
        lambda: index.score(query, ["a"]),
    ]
    for call in calls:
        unchanged(index, query, scorer, call, TypeError, "this index has int ids, got text ids")


@pytest.mark.parametrize("bad", [5, None, "d1", [5, [6]]])
def test_candidate_ids_that_are_no_list(index, query, scorer, bad):
    unchanged(index, query, scorer, lambda: index.rerank(query, bad), (TypeError, ShapeError), "candidate_ids: expected")


def test_ids_and_metadata_at_their_limits(vectors):
    index = MetaIndex()
    index.add(vectors[:1], ids=[2**63 - 1])
    with pytest.raises(ValueError, match="no default ids are left"):
        index.add(vectors[:1])
    with pytest.raises(ValueError, match=r"metadata\[0\]"):
        index.add(vectors[:1], ids=[1], metadata=[{"a": "\ud800"}])
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"metadata\[0\]"):
        index.add(vectors[:1], ids=[1], metadata=[{"a": deep}])
    assert len(index) == 1
    text = MetaIndex()
    text.add(vectors[:1], ids=["a"])
    assert text.add(vectors[:0]).dtype == object


def test_filters(index, query, scorer):
    unchanged(index, query, scorer, lambda: index.search(query, filter=np.ones(3, bool)), ShapeError, "mask of shape (20,)")
    unchanged(index, query, scorer, lambda: index.search(query, filter=["a"]), FilterError, "this index has int ids")
    unchanged(index, query, scorer, lambda: index.search(query, filter=[1.5]), FilterError, "a dict of fields, a list of ids")
    assert (index.search(query, 3, filter=[], scorer=scorer).ids == -1).all()


LONG = {"$or": [{"lang": {"$gt": 1}}] * 401}
DEEP = {"lang": 1}
for _ in range(21):
    DEEP = {"$and": [{"lang": 1}, {"$or": [DEEP, {"lang": 2}]}]}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"lnag": "en"}, "no document has a field 'lnag'; fields are 'lang', 'year'"),
        ({"year": {"$regex": "x"}}, "unknown operator '$regex' for 'year'; expected $eq, $ne, $gt"),
        ({"year": {"gt": 1}}, "unknown operator 'gt'"),
        ({"year": {1: 1}}, "unknown operator int"),
        ({"year": {"$or": [{"$gt": 1}]}}, "unknown operator '$or'"),
        ({"$gt": 1}, "'$gt' can't stand in place of a field"),
        ({"$nor": [{"year": 1}]}, "'$nor' can't stand in place of a field; operators are $eq"),
        ({"year": {}}, "got an empty dict"),
        ({"$and": []}, "at least one dict for $and, got an empty list"),
        ({"$or": ()}, "at least one dict for $or, got an empty list"),
        ({"$or": {"year": 1}}, "at least one dict for $or, got a dict"),
        ({"$or": [1]}, "expected a dict of fields, got int"),
        ({"year": {"$in": 1}}, "expected a list for $in of 'year', got a int"),
        ({"year": {"$nin": "12"}}, "expected a list for $nin"),
        ({"year": {"$in": [[1]]}}, "got a list"),
        ({"year": {"$in": list(range(10_001))}}, "10,000 values in lists"),
        ({"year": [1]}, "expected text, a number, True, False or None for $eq of 'year', got a list"),
        ({"year": {"$eq": {"a": 1}}}, "got a dict"),
        ({"year": b"1"}, "got a bytes"),
        ({"year": object()}, "got a object"),
        ({"year": {"$gt": None}}, "expected text or a number for $gt of 'year', got None"),
        ({"year": float("nan")}, "expected a finite number"),
        ({"year": np.float32("inf")}, "expected a finite number"),
        ({"year": {"$in": [float("-inf")]}}, "expected a finite number"),
        ({"year": 10**5000}, "too many digits"),
        ({"lang": "a\0b"}, "expected text without NUL"),
        ({"lang": "\ud800"}, "expected text without NUL that UTF-8 can hold"),
        ({1: 1}, "expected names of fields, got a int"),
        ({None: 1}, "expected names of fields"),
        ({"": 1}, "a field named '' can't"),
        ({'la"ng': 1}, "can't be filtered by"),
        ({"la\0ng": 1}, "can't be filtered by"),
        ({"\ud800": 1}, "can't be filtered by"),
        ({"x\ny": 1}, "no document has a field 'x\\ny'"),
        (LONG, "at most 400 comparisons"),
        (DEEP, "at most 20 deep"),
    ],
)
def test_filters_by_metadata(scorer, query, vectors, condition, message):
    index = MetaIndex()
    index.add(vectors, metadata=[{"lang": "en", "year": number} for number in range(20)])
    unchanged(index, query, scorer, lambda: index.search(query, filter=condition), FilterError, message)
    unchanged(index, query, scorer, lambda: index.remove(filter=condition), FilterError, message)


def test_what_to_remove(index, query, scorer):
    unchanged(index, query, scorer, lambda: index.remove(), ValueError, "got neither")
    unchanged(index, query, scorer, lambda: index.remove([1], filter=[1]), ValueError, "got both")
    unchanged(index, query, scorer, lambda: index.remove(filter=np.ones(3, bool)), ShapeError, "mask of shape (20,)")
    unchanged(index, query, scorer, lambda: index.remove(filter=["a"]), FilterError, "this index has int ids")


def test_an_unknown_scorer(index, query, scorer):
    unchanged(index, query, scorer, lambda: index.search(query, scorer="gpu"), ValueError, "expected 'auto' or one of cpu")


def test_arguments_of_the_index():
    for arguments, error in [
        ({"dim": 0}, ValueError),
        ({"dim": 1.5}, TypeError),
        ({"doc_tokens": -1}, ValueError),
        ({"codec": "float8"}, ValueError),
        ({"levels": (4, 2)}, ValueError),
        ({"levels": (1, 4), "doc_tokens": 8}, ValueError),
        ({"num_threads": 0}, ValueError),
    ]:
        with pytest.raises(error):
            MetaIndex(**arguments)


def test_every_own_error_is_a_metaindex_error():
    own = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(own) > 10
    assert all(issubclass(error, metaindex.MetaIndexError) for error in own)
