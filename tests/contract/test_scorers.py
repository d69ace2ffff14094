"""Every scorer against the reference on decoded values: the cases that break other MaxSim kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tests import builders
from tests.contract.scorers import EMULATED, INTERPRETED, PAIRS, answer, assert_like_reference, every_scorer
from tests.tolerances import score_tolerance


@pytest.fixture
def rng():
    return np.random.default_rng(20250918)


# An emulated kernel would take minutes for all of them: it has the widest one in float16 alone.
DIMS = [1, 3, 16, 33, 96, 128, 250, 384, 2048, 3584, 4096, 5120, 8192]
EMULATED_DIMS = {1, 33, 128, 250}


@pytest.mark.parametrize(
    ("scorer", "codec", "dim"),
    [
        (scorer, codec, dim)
        for scorer, codec in PAIRS
        for dim in DIMS
        if scorer not in EMULATED or dim in EMULATED_DIMS or (codec, dim) == ("float16", 3584)
    ],
)
def test_dimensions(rng, scorer, codec, dim):
    stored = builders.snapshot(builders.documents(rng, [1, 5, 3, 9, 2, 7, 20], dim), codec, segments=2)
    asked = builders.queries(builders.documents(rng, [4, 1, 18], dim), codec)
    assert_like_reference(scorer, builders.request(asked, stored, codec))
    candidates = np.array([[6, 0, -1, 3, 3], [5, 4, 3, 2, 1], [0, 1, -1, -1, 2]])
    assert_like_reference(scorer, builders.request(asked, stored, codec, candidates=candidates))
    assert_like_reference(scorer, builders.request(asked, stored, codec, candidates=candidates, k=3))


@every_scorer
@pytest.mark.parametrize("edges", [None, (3, 5, 20), (64,)])
def test_budget_equals_truncated_copy(rng, scorer, codec, edges):
    docs = builders.documents(rng, rng.integers(1, 21, 12), 24)
    queries = builders.documents(rng, [16, 3, 9], 24)
    stored = builders.snapshot(docs, codec, edges=edges, segments=2, sequence=np.arange(12))
    asked = builders.queries(queries, codec)
    before = None
    # Interpreted kernels would take minutes for all pairs; these are at the edges of levels, beside them and within.
    interpreted = scorer in INTERPRETED
    for r_c in (1, 2, 3, 4, 6, 9, 16, 20) if interpreted else range(1, 21):
        for r_q in (1, 16) if interpreted else (1, 2, 9, 16):
            scores, _ = answer(scorer, builders.request(asked, stored, codec, (r_q, r_c)))
            # Rows are longest first, so truncating may reorder them: documents are compared in the order of addition.
            cut = builders.snapshot([doc[:r_c] for doc in docs], codec, edges=edges, segments=2, sequence=np.arange(12))
            short = builders.queries([query[:r_q] for query in queries], codec)
            truncated, _ = answer(scorer, builders.request(short, cut, codec))
            np.testing.assert_allclose(scores[:, stored.order], truncated[:, cut.order], **score_tolerance(truncated))
        assert before is None or (scores >= before - score_tolerance(scores)["atol"]).all()
        before = scores


@every_scorer
def test_query_and_document_lengths(rng, scorer, codec):
    every = 3 if scorer in EMULATED else 1
    docs = builders.documents(rng, [*range(1, 9), 15, 16, 17, 31, 33, 63, 64, 65, 128, 130][::every], 40)
    stored = builders.snapshot(docs, codec)
    lengths = [0, 1, 2, 7, 15, 16, *range(17, 32), 33, 48, 63, 64, 65, 100, 129, 130][::every]
    asked = builders.queries(builders.documents(rng, lengths, 40), codec)
    assert_like_reference(scorer, builders.request(asked, stored, codec))
    assert_like_reference(scorer, builders.request(asked, stored, codec, (23, 77)))


@every_scorer
def test_every_query_length_alone(rng, scorer, codec):
    stored = builders.snapshot(builders.documents(rng, [3, 18, 7], 20), codec)
    for length in range(1, 34):
        asked = builders.queries(builders.documents(rng, [length], 20), codec)
        assert_like_reference(scorer, builders.request(asked, stored, codec))


@every_scorer
def test_padding_never_wins(rng, scorer, codec):
    direction = np.abs(rng.standard_normal(50)).astype(np.float32)
    docs = [-np.outer(rng.uniform(0.5, 1, t), direction).astype(np.float32) for t in (1, 3, 6, 11, 64, 5)]
    stored = builders.snapshot(docs, codec, edges=(64,))
    asked = builders.queries([np.outer([1, 0.5], direction).astype(np.float32)], codec, width=5)
    assert (assert_like_reference(scorer, builders.request(asked, stored, codec)) < 0).all()


@every_scorer
def test_zero_query_rows_add_nothing(rng, scorer, codec):
    stored = builders.snapshot(builders.documents(rng, [4, 9, 2], 32), codec)
    query = builders.documents(rng, [5], 32)[0]
    plain, _ = answer(scorer, builders.request(builders.queries([query], codec), stored, codec))
    with_zeros = np.concatenate([query, np.zeros((7, 32), np.float32)])
    padded, _ = answer(scorer, builders.request(builders.queries([with_zeros], codec), stored, codec))
    np.testing.assert_allclose(padded, plain, **score_tolerance(plain))


@every_scorer
def test_ties_go_to_the_document_added_first(rng, scorer, codec):
    one, two = builders.documents(rng, [6, 6], 48)
    docs = [one, two, one, one, two, one]
    stored = builders.snapshot(docs, codec, segments=2, sequence=np.array([5, 1, 4, 0, 3, 2]))
    asked = builders.queries([one[:3]], codec)
    for candidates in (None, np.array([[5, 5, 4, 3, 2, 2, 1, 0, 0]])):
        _, rows = answer(scorer, builders.request(asked, stored, codec, k=6, candidates=candidates))
        assert stored.sequence_at(rows[0]).tolist() == [0, 2, 4, 5, 1, 3]


@every_scorer
def test_near_ties_are_ranked_right(scorer, codec):
    # Scores of about 32, some 1e-4 apart, in numbers that the codec keeps: a small one on its own axis, or for int8 the scale.
    order = np.random.default_rng(3).permutation(24)
    if codec == "int8":
        docs = [np.full((1, 4), 8 * (1 + step * 2.0**-18), np.float32) for step in order]
    else:
        docs = [np.array([[16, 15.5, 0.5, step * 2.0**-13]], np.float32) for step in order]
    stored = builders.snapshot(docs, codec)
    asked = builders.queries([np.ones((1, 4), np.float32)], codec)
    scores, rows = answer(scorer, builders.request(asked, stored, codec, k=24))
    assert (np.diff(scores[0]) < 0).all()
    assert order[rows[0]].tolist() == list(range(23, -1, -1))


@every_scorer
@pytest.mark.parametrize("count", [1, 2048, 2049])
def test_candidate_lists(rng, scorer, codec, count):
    stored = builders.snapshot(builders.documents(rng, rng.integers(1, 9, 60), 16), codec, segments=3)
    asked = builders.queries(builders.documents(rng, [3, 5], 16), codec)
    for lists in (1, 2):
        candidates = rng.integers(-1, 60, (lists, count))
        assert_like_reference(scorer, builders.request(asked, stored, codec, candidates=candidates))
        assert_like_reference(scorer, builders.request(asked, stored, codec, candidates=candidates, k=70))


@every_scorer
def test_allowed_rows(rng, scorer, codec):
    stored = builders.snapshot(builders.documents(rng, rng.integers(1, 9, 50), 16), codec, segments=3)
    asked = builders.queries(builders.documents(rng, [3, 5], 16), codec)
    candidates = rng.integers(-1, 50, (2, 40))
    for allow in (rng.random(50) < 0.5, np.zeros(50, bool), np.ones(50, bool), np.arange(50) == 49):
        for rest in ({}, {"k": 9}, {"candidates": candidates}, {"candidates": candidates, "k": 9}):
            assert_like_reference(scorer, builders.request(asked, stored, codec, allow=allow, **rest))


@every_scorer
def test_same_bits_for_any_number_of_threads(rng, scorer, codec):
    interpreted = scorer in INTERPRETED  # in which no threads race
    count = 40 if interpreted else 400
    stored = builders.snapshot(builders.documents(rng, rng.integers(1, 20, count), 64), codec, segments=2)
    asked = builders.queries(builders.documents(rng, [16, 4, 9], 64), codec)
    candidates = rng.integers(0, count, (3, 300))
    for rest in ({}, {"k": 50}, {"candidates": candidates}, {"candidates": candidates, "k": 50}):
        first = answer(scorer, builders.request(asked, stored, codec, **rest))
        for threads in (1,) if interpreted else (1, 2, 3, 8):
            again = answer(scorer, builders.request(asked, stored, codec, num_threads=threads, **rest))
            assert first[0].tobytes() == again[0].tobytes()
            assert first[1].tobytes() == again[1].tobytes()


@every_scorer
def test_alone_as_in_a_batch(rng, scorer, codec):
    stored = builders.snapshot(builders.documents(rng, rng.integers(1, 20, 30), 64), codec)
    queries = builders.documents(rng, [16, 4, 9, 1, 30], 64)
    together, _ = answer(scorer, builders.request(builders.queries(queries, codec), stored, codec))
    for b, query in enumerate(queries):
        alone, _ = answer(scorer, builders.request(builders.queries([query], codec), stored, codec))
        np.testing.assert_allclose(alone[0], together[b], **score_tolerance(alone))


@every_scorer
def test_none_and_one(rng, scorer, codec):
    asked = builders.queries(builders.documents(rng, [2, 3], 16), codec)
    empty = builders.snapshot([], codec, edges=(4,))
    scores, _ = answer(scorer, builders.request(asked, empty, codec))
    assert scores.shape == (2, 0)
    scores, rows = answer(scorer, builders.request(asked, empty, codec, k=3))
    assert np.isneginf(scores).all()
    assert (rows == -1).all()
    assert_like_reference(
        scorer, builders.request(asked, builders.snapshot(builders.documents(rng, [1], 16), codec), codec, k=2)
    )


@every_scorer
def test_sums_of_the_largest_codes(scorer, codec):
    # 8,192 products of 127 * 127 stay within int32; float16's own limits are far below float32's.
    docs = [np.ones((2, 8192), np.float32), -np.ones((1, 8192), np.float32)]
    stored = builders.snapshot(docs, codec)
    asked = builders.queries([np.ones((1, 8192), np.float32)], codec)
    scores = assert_like_reference(scorer, builders.request(asked, stored, codec))
    np.testing.assert_allclose(scores, [[8192, -8192]], **score_tolerance(scores))
