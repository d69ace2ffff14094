"""The compiled orders of ``nest``: the same bits as numpy's, for every instruction set and any number of threads."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import _native
from metaindex.nesting import ORDERS
from tests import orders, tolerances

core = _native.core
ISAS = ["generic", "avx2", "avx512"]
LAWS = {"facility": orders.facility, "clusters": orders.clusters, "sample": orders.sample}


def nested(order, documents, n, isa=None, seed=0, num_threads=1):
    """For each document its vectors and places, written over what was there."""
    if isa is not None and not core.features()[isa][0]:
        pytest.skip(f"{isa}: {core.features()[isa][1]}")
    sizes = [min(n, core.nested_size(order, len(document))) for document in documents]
    vectors = [np.full((size, document.shape[1]), np.nan, np.float32) for size, document in zip(sizes, documents)]
    places = [np.full(size, -7) for size in sizes]
    core.nest(order, documents, vectors, places, seed, isa=isa, num_threads=num_threads)
    return list(zip(vectors, places))


def assert_same(found, expected, case=""):
    (vectors, places), (wanted, chosen) = found, expected
    assert places.tolist() == list(chosen), case
    assert vectors.tobytes() == wanted.tobytes(), case


def document(t, d, seed=0, scale=1.0):
    tokens = np.random.default_rng(seed).standard_normal((t, d)).astype(np.float32)
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True) * np.float32(scale)


def special(t, d):
    """Documents that are awkward: repeats, zeros, means that cancel out, lengths far apart, ties everywhere."""
    plain = document(t, d, seed=t * d)
    repeated = np.repeat(plain[: max(1, t // 3)], 3, axis=0)
    with_zeros = np.where(np.arange(t)[:, None] % 4 == 1, np.float32(0), plain)
    integers = np.random.default_rng(t + d).integers(-2, 3, (t, d)).astype(np.float32)
    lengths = plain * 10.0 ** np.random.default_rng(d).integers(-6, 7, (t, 1)).astype(np.float32)
    return {
        "plain": plain,
        "repeated": repeated,
        "zeros": np.zeros((t, d), np.float32),
        "some zeros": with_zeros,
        "cancelling": np.vstack([plain, -plain]),
        "integers": integers,
        "lengths": lengths.astype(np.float32),
        "one token often": np.repeat(plain[:1], t, axis=0),
        "tiny": plain * np.float32(1e-30),
        "huge": plain * np.float32(1e15),
    }


@cache
def by_law(order, t, d):
    """For each special document the whole order."""
    return {name: LAWS[order](tokens, 1000) for name, tokens in special(t, d).items()}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("order", LAWS)
@pytest.mark.parametrize("d", [1, 3, 16, 33, 128])
@pytest.mark.parametrize("t", [1, 2, 7, 8, 15, 16, 31, 32, 33, 65, 130])
def test_equals_the_law_and_every_prefix_is_the_shorter_answer(order, isa, t, d):
    for name, tokens in special(t, d).items():
        vectors, places = by_law(order, t, d)[name]
        for n in (1, 2, 9, 1000):
            assert_same(nested(order, [tokens], n, isa)[0], (vectors[:n], places[:n]), f"{name}, n = {n}")


# Small integers make ties, the others near ties.
numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-2, 2, width=32), st.sampled_from([0.1, 0.2, 0.3, 1e-7, -1e-7]))
documents = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: st.lists(st.lists(numbers, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0])
)


@pytest.mark.parametrize("order", LAWS)
@given(document=documents)
@settings(deadline=None)
def test_equals_the_law_on_ties_and_near_ties(order, document):
    tokens = np.array(document, np.float32)
    assert_same(nested(order, [tokens], 100)[0], LAWS[order](tokens, 100))


@pytest.mark.parametrize("order", ORDERS)
def test_all_instruction_sets_and_threads_give_the_same_bits(order):
    pages = [document(t, 128, seed=t) for t in (1030, 1, 254, 300, 77)]
    expected = nested(order, pages, 64)
    for isa in core.features():
        if not core.features()[isa][0]:
            continue
        for threads in (1, 3):
            for found, wanted in zip(nested(order, pages, 64, isa, num_threads=threads), expected):
                assert_same(found, wanted)


@pytest.mark.parametrize("t", [1024, 1056])
def test_rows_that_would_share_places_of_a_cache(t):
    tokens = document(t - 1, 8, seed=1)
    assert_same(nested("facility", [tokens], 20)[0], orders.facility(tokens, 20))


def test_clusters_are_those_of_merging_the_two_that_lose_least():
    tokens = document(14, 5, seed=3).astype(np.float64)
    merged = [frozenset([place]) for place in range(len(tokens))]
    expected = set(merged)
    while len(merged) > 1:
        pairs = [(a, b) for a in merged for b in merged if min(a) < min(b)]
        a, b = min(
            pairs, key=lambda pair: scatter(tokens, pair[0] | pair[1]) - scatter(tokens, pair[0]) - scatter(tokens, pair[1])
        )
        merged = [each for each in merged if each not in (a, b)] + [a | b]
        expected.add(a | b)
    assert {frozenset(cluster.places) for cluster in orders.ward(tokens.astype(np.float32))} == expected


def scatter(tokens, places):
    members = tokens[sorted(places)]
    return ((members - members.mean(axis=0)) ** 2).sum()


def test_draws_depend_on_the_seed_alone():
    pages = [document(50, 8, seed=seed) for seed in range(4)]
    first, *others = (nested("sample", pages, 20, seed=seed) for seed in (0, 1, 2**64 - 1))
    for other in others:
        assert any(a[1].tolist() != b[1].tolist() for a, b in zip(first, other))
    for page, found in zip(pages, first):
        assert_same(nested("sample", [page], 20)[0], found)
        assert_same(found, orders.sample(page, 20))


def test_draws_are_as_likely_as_the_squares_of_distances():
    tokens = np.array([[1, 0], [0, 1]], np.float32) * np.array([[3], [4]], np.float32)
    squares = ((tokens - orders.mean(tokens)) ** 2).sum(axis=1)
    taken = [nested("sample", [tokens], 2, seed=seed)[0][1][1] for seed in range(4000)]
    assert abs(np.mean(np.equal(taken, 0)) - squares[0] / squares.sum()) <= tolerances.DRAWN_SHARE


def test_bad_arrays_are_named():
    tokens, vectors, places = document(3, 4), np.empty((4, 4), np.float32), np.empty(4, np.int64)
    for wrong, message in [
        (("best", [tokens], [vectors], [places]), "order: expected one of facility, clusters, sample, got 'best'"),
        (("facility", [tokens], [], [places]), "expected one of each for each document"),
        (("facility", [tokens.astype(np.float64)], [vectors], [places]), r"tokens: expected float32 \[any, any\]"),
        (("facility", [tokens[:, ::2]], [vectors[:, ::2]], [places]), "tokens: expected a C-contiguous array"),
        (("facility", [tokens[:0]], [vectors], [places]), "tokens: expected at least one token"),
        (("facility", [tokens], [vectors[:0]], [places[:0]]), "vectors: expected 1 to 4 of them, got 0"),
        (("clusters", [tokens], [vectors], [places]), "vectors: expected 1 to 3 of them, got 4"),
        (("facility", [tokens], [vectors], [places[:3]]), r"places: expected int64 \[4\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            core.nest(*wrong)
    with pytest.raises(ValueError, match="isa"):
        core.nest("facility", [tokens], [vectors], [places], isa="mmx")
    with pytest.raises(ValueError, match="num_threads"):
        core.nest("facility", [tokens], [vectors], [places], num_threads=0)
