"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metaindex.evaluation import mrr_at_k, ndcg_at_k, recall_at_k
from tests import tolerances


def test_ndcg_of_one_relevant_document_is_the_discount_of_its_rank():
    ranked = [["a", "b", "c"], ["b", "a", "c"], ["b", "c", "a"], ["b", "c", "d"]]
    expected = [1.0, 1 / math.log2(3), 0.5, 0.0]
    np.testing.assert_allclose(ndcg_at_k(ranked, [{"a": 1.0}] * 4), expected, rtol=tolerances.METRIC)


def test_ndcg_of_graded_judgements():
    # DCG = 3 / log2(2) + 0 / log2(3) + 2 / log2(4) = 4; ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4).
    gains = {7: 3.0, 8: 2.0, 9: 1.0}
    ideal = 3 + 2 / math.log2(3) + 0.5
    np.testing.assert_allclose(ndcg_at_k(np.array([[7, 1, 8]]), [gains], k=3), [4 / ideal], rtol=tolerances.METRIC)


def test_ndcg_looks_no_deeper_than_k():
    np.testing.assert_array_equal(ndcg_at_k([[1, 2, 3]], [{3: 1.0}], k=2), [0.0])
    # With k = 1 the best ranking has one document too.
    np.testing.assert_array_equal(ndcg_at_k([[3, 2, 1]], [{3: 1.0, 2: 1.0}], k=1), [1.0])


def test_ndcg_is_undefined_without_relevant_documents():
    assert np.isnan(ndcg_at_k([[1, 2]], [{}])).all()
    assert np.isnan(ndcg_at_k([[1, 2]], [{1: 0.0}])).all()


def test_mrr_is_the_reciprocal_rank_of_the_first_relevant_hit():
    ranked = [[1, 2, 3], [2, 1, 3], [2, 3, 1], [4, 5, 6]]
    np.testing.assert_allclose(mrr_at_k(ranked, [{1: 1.0, 3: 1.0}] * 4), [1, 1 / 2, 1 / 2, 0], rtol=tolerances.METRIC)
    np.testing.assert_array_equal(mrr_at_k([[2, 1]], [{1: 1.0}], k=1), [0.0])


def test_recall_counts_scores_so_that_a_tie_is_no_miss():
    exact = np.array([[9.0, 8.0, 7.0, 7.0]])
    np.testing.assert_array_equal(recall_at_k([[9.0, 8.0, 7.0]], exact, k=3), [1.0])
    np.testing.assert_allclose(recall_at_k([[9.0, 6.0, 7.0]], exact, k=3), [2 / 3], rtol=tolerances.METRIC)
    np.testing.assert_array_equal(recall_at_k([[9.0, 8.0, 6.9999]], exact, k=3), [1.0])
    np.testing.assert_allclose(recall_at_k([[9.0, 8.0, 6.9999]], exact, k=3, tolerance=0), [2 / 3], rtol=tolerances.METRIC)


def test_recall_with_missing_hits():
    none = -np.inf
    np.testing.assert_array_equal(recall_at_k([[5.0, none]], [[5.0, none]], k=2), [1.0])
    np.testing.assert_array_equal(recall_at_k([[none, none]], [[5.0, none]], k=2), [0.0])
    np.testing.assert_array_equal(recall_at_k([[none]], [[none]], k=1), [1.0])
    np.testing.assert_array_equal(recall_at_k(np.empty((1, 0)), [[5.0]], k=1), [0.0])


def test_recall_never_exceeds_one():
    np.testing.assert_array_equal(recall_at_k([[5.0, 5.0, 5.0]], [[5.0, 5.0, 5.0]], k=2), [1.0])


@pytest.mark.parametrize("metric", [ndcg_at_k, mrr_at_k, recall_at_k])
def test_results_and_judgements_must_be_of_the_same_queries(metric):
    judged = [[1.0]] if metric is recall_at_k else [{1: 1.0}]
    with pytest.raises(ValueError, match="of the same queries, got 2 and 1"):
        metric([[1.0], [2.0]], judged)
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        metric([[1.0]], judged, 0)
