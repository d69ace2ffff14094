"""Levels of several codecs: the reference against the rule in plain numpy, every scorer against the reference or a reason."""

from __future__ import annotations

import numpy as np
import pytest

from metaindex.codecs import CODECS, bands
from tests import builders
from tests.contract.scorers import SCORERS, answer, assert_like_reference
from tests.tolerances import score_tolerance

EDGES = (1, 3, 4, 8, 20)
KEPT = ["4:int8,float16", "1:float32,4:bfloat16,int8", "8:float16,float32", "1:int8,3:float32,8:int8,float16"]
# One instruction set has not the arithmetic for all codecs: what it says no to is skipped with its reason.
every_scorer = pytest.mark.parametrize("scorer", list(SCORERS))
every_kind = pytest.mark.parametrize("kept", KEPT)


@pytest.fixture
def rng():
    return np.random.default_rng(20261126)


@pytest.fixture
def documents(rng):
    return builders.documents(rng, [1, 20, 3, 4, 9, 1, 13, 8, 2, 20, 5], 24)


@pytest.fixture
def queries(rng):
    return builders.documents(rng, [16, 0, 3, 1], 24)


def by_the_rule(query, document, kept):
    """For each query token the best of all document tokens, each compared in its own codec; then the sum."""
    products = np.empty((len(query), len(document)))
    for token in range(len(document)):
        code = next(each for stop, each in zip((*kept.edges, np.inf), kept.codecs) if token < stop)
        one = code.decode(code.encode(document[token])).astype(np.float64)
        products[:, token] = code.decode(code.encode(query)).astype(np.float64) @ one
    return products.max(axis=1).sum()


@every_kind
@pytest.mark.parametrize("budget", [(16, 20), (5, 9), (16, 4), (1, 1), (2, 8)])
def test_the_reference_follows_the_rule(documents, queries, kept, budget):
    stored = builders.snapshot(documents, kept, edges=EDGES, segments=2)
    scores, _ = answer("reference", builders.request(builders.queries(queries, kept), stored, kept, budget))
    r_q, r_c = budget
    expected = np.array([[by_the_rule(q[:r_q], d[:r_c], bands(kept)) for d in documents] for q in queries])
    np.testing.assert_allclose(scores[:, stored.order], expected, **score_tolerance(expected))


@every_scorer
@every_kind
def test_budgets_masks_and_candidates(rng, documents, queries, scorer, kept):
    stored = builders.snapshot(documents, kept, edges=EDGES, segments=3)
    asked = builders.queries(queries, kept)
    lists = rng.integers(-1, len(documents), (len(queries), 9))
    allow = rng.random(len(documents)) < 0.5
    for budget in [(r_q, r_c) for r_q in (1, 7, 16) for r_c in (1, 2, 4, 6, 11, 20)]:
        assert_like_reference(scorer, builders.request(asked, stored, kept, budget))
    for rest in ({}, {"candidates": lists}, {"candidates": lists[:1]}):
        for more in ({}, {"k": 4}, {"k": 30}, {"allow": allow}, {"allow": allow, "k": 3}):
            assert_like_reference(scorer, builders.request(asked, stored, kept, **rest, **more))


@every_scorer
def test_padding_never_wins_and_ties_go_to_the_first(rng, scorer):
    kept = "1:float16,float32"
    direction = np.abs(rng.standard_normal(50)).astype(np.float16).astype(np.float32)
    docs = [-np.outer(np.ones(t), direction).astype(np.float32) for t in (2, 1, 7, 3, 1)]
    stored = builders.snapshot(docs, kept, edges=(1, 8), segments=2, sequence=np.array([3, 4, 1, 0, 2]))
    asked = builders.queries([np.outer([1, 0.5], direction).astype(np.float32)], kept, width=5)
    scores, rows = answer(scorer, builders.request(asked, stored, kept, k=5))
    assert (scores < 0).all()
    assert (np.diff(scores) == 0).all()
    assert stored.sequence_at(rows[0]).tolist() == [0, 1, 2, 3, 4]


@every_scorer
def test_blocks_and_threads_make_no_difference(rng, scorer, monkeypatch):
    kept = "2:int8,float16"
    documents = builders.documents(rng, rng.integers(1, 9, 60 if scorer in ("triton", "reference") else 400), 32)
    stored = builders.snapshot(documents, kept, edges=(2, 8), segments=2)
    asked = builders.queries(builders.documents(rng, [16, 3], 32), kept)
    one = answer(scorer, builders.request(asked, stored, kept, k=20))
    assert_like_reference(scorer, builders.request(asked, stored, kept, k=20))
    monkeypatch.setattr("metaindex.scoring.banded._MAXIMA_BYTES", 4 * 32 * 7)
    for threads in (1, 3):
        again = answer(scorer, builders.request(asked, stored, kept, k=20, num_threads=threads))
        assert one[0].tobytes() == again[0].tobytes()
        assert one[1].tobytes() == again[1].tobytes()


def test_what_reads_one_codec_only_says_no_with_the_reason(documents, queries):
    kept = "4:int8,float16"
    stored, asked = builders.snapshot(documents, kept, edges=EDGES), builders.queries(queries, kept)
    verdict = SCORERS["triton"].supports(builders.request(asked, stored, kept))
    assert not verdict.ok
    if "one codec" in verdict.why:  # it could run at all
        assert "int8 from token 0 on, float16 from token 4 on" in verdict.why
        assert SCORERS["triton"].supports(builders.request(asked, stored, kept, (16, 4))).ok
    assert SCORERS["cpu"].supports(builders.request(asked, stored, kept)).ok
    assert set(CODECS) >= {"int8", "float16"}
