"""What must hold for any data: prefixes, monotonicity, ties, batches. Against plain numpy, on decoded values."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.codecs import CODECS
from metaindex.scoring.reference import maxsim
from tests.tolerances import score_tolerance

CODEC_NAMES = sorted(CODECS)
SCORERS = ["cpu", "reference"]


@st.composite
def cases(draw):
    """Ragged documents and queries with few distinct values, so that ties and duplicates are common."""
    dim = draw(st.sampled_from([1, 3, 16, 33]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())

    def tokens(most):
        values = rng.standard_normal((int(rng.integers(1, most + 1)), dim), dtype=np.float32)
        return np.round(values) if coarse else values

    documents = [tokens(draw(st.integers(1, 9))) for _ in range(draw(st.integers(1, 12)))]
    queries = [tokens(draw(st.integers(1, 20))) for _ in range(draw(st.integers(1, 3)))]
    return documents, queries


def decoded(codec, tokens):
    return CODECS[codec].decode(CODECS[codec].encode(tokens))


def built(documents, codec, **arguments):
    index = MetaIndex(codec=codec, **arguments)
    half = len(documents) // 2
    index.add(documents[:half])  # two segments
    index.add(documents[half:])
    return index


def expected_scores(documents, queries, codec, r_q, r_c):
    return np.array(
        [[maxsim(decoded(codec, q[:r_q]), decoded(codec, d[:r_c])) for d in documents] for q in queries], np.float32
    )


@pytest.mark.parametrize("codec", CODEC_NAMES)
@settings(max_examples=25, deadline=None)
@given(case=cases(), data=st.data())
def test_a_budget_scores_the_truncated_copy(codec, case, data):
    documents, queries = case
    sides = max(map(len, queries)), max(map(len, documents))
    budget = data.draw(st.tuples(st.integers(1, sides[0]), st.integers(1, sides[1])))
    index = built(documents, codec)
    expected = expected_scores(documents, queries, codec, *budget)
    truncated = MetaIndex(codec=codec)
    truncated.add([document[: budget[1]] for document in documents])
    for scorer in SCORERS:
        found = index.score(queries, range(len(documents)), budget, scorer=scorer)
        np.testing.assert_allclose(found, expected, **score_tolerance(expected))
        copied = truncated.score([query[: budget[0]] for query in queries], range(len(documents)), scorer=scorer)
        np.testing.assert_allclose(found, copied, **score_tolerance(expected))


@settings(max_examples=25, deadline=None)
@given(case=cases(), codec=st.sampled_from(CODEC_NAMES))
def test_a_score_never_falls_as_documents_get_more_tokens(case, codec):
    documents, queries = case
    index = built(documents, codec)
    scores = [index.score(queries, range(len(documents)), (1, r_c)) for r_c in range(1, max(map(len, documents)) + 1)]
    for lower, higher in pairwise(scores):
        assert (higher >= lower - score_tolerance(lower)["atol"]).all()


@settings(max_examples=40, deadline=None)
@given(case=cases(), codec=st.sampled_from(CODEC_NAMES), k=st.integers(1, 15))
def test_the_order_is_by_score_and_then_by_addition(case, codec, k):
    documents, queries = case
    documents = documents + documents[:3]  # exact duplicates
    index = built(documents, codec)
    for scorer in SCORERS:
        scores, ids = index.search(queries, k, scorer=scorer)
        everything = index.score(queries, range(len(documents)), scorer=scorer)
        for b in range(len(queries)):
            best = np.lexsort((np.arange(len(documents)), -everything[b]))[:k]
            assert ids[b, : len(best)].tolist() == best.tolist()
            np.testing.assert_array_equal(scores[b, : len(best)], everything[b, best])


@settings(max_examples=25, deadline=None)
@given(case=cases(), codec=st.sampled_from(CODEC_NAMES))
def test_a_batch_answers_like_its_queries_alone(case, codec):
    documents, queries = case
    index = built(documents, codec)
    together = index.search(queries, len(documents))
    for b, query in enumerate(queries):
        alone = index.search(query, len(documents))
        np.testing.assert_allclose(together.scores[b], alone.scores[0], **score_tolerance(alone.scores))


@settings(max_examples=25, deadline=None)
@given(case=cases(), codec=st.sampled_from(CODEC_NAMES), threads=st.integers(1, 5))
def test_scores_are_the_same_bits_for_any_number_of_threads(case, codec, threads):
    documents, queries = case
    one, many = built(documents, codec, num_threads=1), built(documents, codec, num_threads=threads)
    np.testing.assert_array_equal(one.search(queries, 5).scores, many.search(queries, 5).scores)
    np.testing.assert_array_equal(one.search(queries, 5).ids, many.search(queries, 5).ids)


@settings(max_examples=25, deadline=None)
@given(case=cases(), codec=st.sampled_from(CODEC_NAMES))
def test_a_plan_that_keeps_everything_is_exact(case, codec):
    documents, queries = case
    index = built(documents, codec)
    exact = index.search(queries, 3)
    found = index.search(queries, 3, plan=f"(1,1)>{len(documents) + 3} (*,*)")
    assert found.exact
    np.testing.assert_array_equal(found.ids, exact.ids)
    kept = index.search(queries, 1, plan="(*,*)>1 (*,*)")
    np.testing.assert_array_equal(kept.ids[:, 0], exact.ids[:, 0])


@settings(max_examples=25, deadline=None)
@given(case=cases(), data=st.data())
def test_filters_and_removals_leave_the_rest_as_it_was(case, data):
    documents, queries = case
    index = built(documents, "float32")
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(documents), max_size=len(documents))))
    everything = index.search(queries, len(documents))
    by_mask = index.search(queries, len(documents), filter=kept)
    by_ids = index.search(queries, len(documents), filter=np.flatnonzero(kept))
    index.remove(np.flatnonzero(~kept))
    removed = index.search(queries, len(documents))
    assert len(index) == kept.sum()
    for b in range(len(queries)):
        expected = [id_ for id_ in everything.ids[b].tolist() if kept[id_]]
        for found in (by_mask, by_ids, removed):
            assert found.ids[b, : len(expected)].tolist() == expected
            assert (found.ids[b, len(expected) :] == -1).all()
