"""nest: what its orders do, told by brute force, and what it takes and gives. The law is in tests/contract/test_nest.py."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex.errors import NonFiniteError, ShapeError
from metaindex.nesting import ORDERS, nest
from tests import tolerances


def naive_nest(tokens: np.ndarray, n: int) -> np.ndarray:
    """The definition, by brute force: every step recomputes the coverage of every possible choice."""
    mean = tokens.astype(np.float64).mean(axis=0)
    chosen = [mean / np.linalg.norm(mean) if np.any(mean) else mean]
    taken: list[int] = []
    while len(chosen) < min(n, len(tokens) + 1):
        coverages = {
            place: sum(max(float(token @ other) for other in [*chosen, tokens[place]]) for token in tokens)
            for place in range(len(tokens))
            if place not in taken
        }
        taken.append(max(coverages, key=lambda place: (coverages[place], -place)))
        chosen.append(tokens[taken[-1]])
    return np.array(chosen)


def coverage(tokens: np.ndarray, chosen: np.ndarray) -> float:
    return float((tokens @ chosen.T).max(axis=1).sum())


# Small integers: equal gains are common, so that ties are tested for real.
small_documents = st.integers(1, 9).flatmap(
    lambda t: st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(-3, 3), min_size=d, max_size=d), min_size=t, max_size=t)
    )
)


def random_document(t: int, d: int = 16, seed: int = 0) -> np.ndarray:
    tokens = np.random.default_rng(seed).standard_normal((t, d)).astype(np.float32)
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


@settings(deadline=None)
@given(document=small_documents)
def test_every_step_is_a_best_step(document: list[list[int]]) -> None:
    tokens = np.array(document, dtype=np.float64)
    nested = nest(tokens)
    assert nested.shape == (len(tokens) + 1, tokens.shape[1])
    for size in range(1, len(nested)):
        reached = coverage(tokens, nested[: size + 1])
        # Tokens that were taken before add nothing, so offering them again changes no maximum.
        offered = max(coverage(tokens, np.vstack([nested[:size], token])) for token in tokens)
        assert reached >= offered - tolerances.NESTING_COVERAGE


# Not 2: the mean of two unit vectors is as near to one as to the other, and rounding decides.
@pytest.mark.parametrize("t", [1, 3, 17, 64])
def test_equals_brute_force_on_unit_vectors(t: int) -> None:
    tokens = random_document(t, seed=t)
    np.testing.assert_allclose(nest(tokens, 9), naive_nest(tokens, 9), atol=tolerances.NESTING_MEAN)


def test_first_vector_is_the_normalised_mean_and_the_rest_are_tokens() -> None:
    tokens = random_document(40)
    nested = nest(tokens)
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(nested[0], mean / np.linalg.norm(mean), atol=tolerances.NESTING_MEAN)
    assert nested.shape == (41, 16)
    assert sorted(map(tuple, nested[1:])) == sorted(map(tuple, tokens))


@pytest.mark.parametrize("order", ORDERS)
@given(n=st.integers(1, 64), t=st.integers(1, 40))
@settings(deadline=None)
def test_every_prefix_is_the_shorter_answer(order: str, n: int, t: int) -> None:
    tokens = random_document(t, seed=t)
    np.testing.assert_array_equal(nest(tokens, n, order=order), nest(tokens, order=order)[:n])


@pytest.mark.parametrize("order", ORDERS)
def test_prefixes_cover_more_than_reading_order(order: str) -> None:
    # Four topics, one after the other: reading order spends its first tokens on one of them.
    topics = np.repeat(np.eye(4, 16, dtype=np.float32), 8, axis=0)
    assert coverage(topics, nest(topics, 5, order=order)) == len(topics) > coverage(topics, topics[:5])


def test_ties_go_to_the_token_that_stands_first() -> None:
    tokens = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(nest(tokens)[1:], tokens)


def test_mean_of_zero_stays_zero() -> None:
    tokens = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(nest(tokens), [[0, 0], [1, 0], [-1, 0]])


def test_lists_and_stacks() -> None:
    documents = [random_document(t, seed=t) for t in (3, 9, 9)]
    nested = nest(documents, 5)
    assert [len(document) for document in nested] == [4, 5, 5]
    np.testing.assert_array_equal(nested[1], nest(documents[1], 5))
    np.testing.assert_array_equal(nest(np.stack(documents[1:]), 5), np.stack(nested[1:]))
    assert nest([], 5) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_keeps_dtype_and_leaves_the_input_alone(dtype: type) -> None:
    tokens = random_document(6).astype(dtype)
    before = tokens.copy()
    assert nest(tokens, 3).dtype == dtype
    np.testing.assert_array_equal(tokens, before)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_torch_in_torch_out(dtype: str) -> None:
    import torch

    tokens = torch.from_numpy(random_document(12)).to(getattr(torch, dtype))
    nested = nest(tokens, 5)
    assert isinstance(nested, torch.Tensor)
    assert nested.dtype == tokens.dtype
    assert nested.shape == (5, 16)
    expected = nest(tokens.double().numpy(), 5)
    np.testing.assert_allclose(nested.double().numpy(), expected, atol=tolerances.NESTING_BFLOAT16_MEAN)
    assert nest(torch.stack([tokens, tokens]), 5).shape == (2, 5, 16)


@pytest.mark.parametrize(
    ("tokens", "n", "error", "message"),
    [
        (np.zeros(4, np.float32), 2, ShapeError, r"tokens: expected \[t, d\] or \[N, t, d\] .* got shape \(4,\)"),
        (np.zeros((0, 4), np.float32), 2, ShapeError, r"got shape \(0, 4\)"),
        (np.zeros((4, 0), np.float32), 2, ShapeError, r"got shape \(4, 0\)"),
        ([np.zeros((2, 3, 4), np.float32)], 2, ShapeError, r"tokens\[0\]: expected \[t, d\] with"),
        (np.full((2, 4), np.nan, np.float32), 2, NonFiniteError, "tokens: expected finite numbers"),
        ([np.ones((2, 4)), np.full((2, 4), np.inf)], 2, NonFiniteError, r"tokens\[1\]: expected finite"),
        (np.ones((2, 4), np.int64), 2, TypeError, "expected floating numbers, got int64"),
        ("words", 2, TypeError, "expected a numpy array or a torch tensor, got str"),
        ([[1.0, 2.0]], 2, TypeError, r"tokens\[0\]: expected a numpy array"),
        (np.ones((2, 4)), 0, ValueError, "n: expected at least 1"),
        (np.ones((2, 4)), 1.5, TypeError, "n: expected an integer"),
    ],
)
def test_bad_input_is_named(tokens: object, n: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nest(tokens, n)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": "best"}, ValueError, "order: expected one of facility, clusters, sample, got 'best'"),
        ({"order": None}, ValueError, "order: expected one of"),
        ({"order": ["facility"]}, ValueError, "order: expected one of"),
        ({"seed": -1}, ValueError, "seed: expected at least 0"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer"),
        ({"num_threads": 0}, ValueError, "num_threads: expected at least 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nest(random_document(3), **options)


@pytest.mark.parametrize("order", ORDERS)
def test_threads_and_neighbours_change_nothing(order: str) -> None:
    documents = [random_document(t, d=32, seed=t) for t in (250, 9, 300, 120)]
    together = nest(documents, 20, order=order, num_threads=3)
    for document, found in zip(documents, together, strict=True):
        np.testing.assert_array_equal(nest(document, 20, order=order, num_threads=1), found)


def test_draws_follow_the_seed() -> None:
    tokens = random_document(60)
    np.testing.assert_array_equal(nest(tokens, 20, order="sample"), nest(tokens, 20, order="sample", seed=0))
    assert not np.array_equal(nest(tokens, 20, order="sample"), nest(tokens, 20, order="sample", seed=1))
    np.testing.assert_array_equal(nest(tokens, 20), nest(tokens, 20, seed=1))


def test_means_of_clusters_are_as_long_as_their_tokens() -> None:
    tokens = 5 * random_document(40)
    lengths = np.linalg.norm(nest(tokens, order="clusters"), axis=1)
    np.testing.assert_allclose(lengths, 5, rtol=tolerances.UNIT_LENGTH)
    np.testing.assert_array_equal(nest(tokens[:1], order="clusters"), tokens[:1])


def test_float64_tokens_keep_their_digits() -> None:
    tokens = np.random.default_rng(0).standard_normal((12, 4))
    for order in ORDERS:
        nested = nest(tokens, order=order)
        picked = {tuple(vector) for vector in nested} & {tuple(token) for token in tokens}
        assert len(picked) == 12 if order != "clusters" else picked
