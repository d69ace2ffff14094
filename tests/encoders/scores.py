"""Scores of encoders: through an index, by hand, and held together."""

from __future__ import annotations

import numpy as np

from metaindex import MetaIndex
from tests import tolerances


def sums(queries, documents):
    """MaxSim [queries, documents] of lists of vectors."""
    return np.array([[(query @ document.T).max(axis=1).sum() for document in documents] for query in queries])


def searched(encoder, queries, documents, budget=None):
    """Scores [queries, documents] through an index."""
    index = MetaIndex(codec="float32")
    index.set_encoder(encoder)
    index.add(encoder.encode_document(documents))
    scores, ids = index.search(encoder.encode_query(queries), k=len(documents), budget=budget)
    return np.take_along_axis(scores, np.argsort(ids, axis=1), axis=1)


def assert_scores(found, expected):
    expected = np.asarray(expected, dtype=np.float64)
    assert np.ptp(expected) > 0.01  # what is told apart can be held together
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerances.BATCHED_MODEL * np.abs(expected).max())
