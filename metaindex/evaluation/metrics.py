"""Metrics, one value per query: take the mean over queries yourself, or their spread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scores nearer than this share of the largest exact score are ties: recall counts either document.
TIE = 1e-5


def ndcg_at_k(
    ranked: Sequence[Sequence[Any]], relevant: Sequence[Mapping[Hashable, float]], k: int = 10
) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first ``k`` hits.

    ``DCG = sum_{rank = 1..k} gain(rank) / log2(rank + 1)``, divided by the DCG of the best possible ranking (Jarvelin and
    Kekalainen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002). Gains enter linearly, as in trec_eval and BEIR.

    Args:
        ranked: for each of B queries the ids of its hits, best first: lists or the ``ids`` [B, k] of a ``SearchResult``.
        relevant: for each query the gains, >= 0, of its relevant ids; an id that is not listed gains nothing.
        k: how deep to look, >= 1.

    Returns:
        float64 [B], in 0..1; NaN where a query has no relevant id, for which nDCG is not defined.

    Raises:
        ValueError: not one ranking for each query, or ``k`` below 1.
    """
    _check(ranked, relevant, k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    values = np.full(len(ranked), np.nan)
    for query, (hits, gains) in enumerate(zip(ranked, relevant)):
        best = np.array(sorted(gains.values(), reverse=True)[:k], dtype=np.float64)
        ideal = float(best @ discounts[: len(best)])
        if ideal > 0:
            found = _gains(hits, gains, k)
            values[query] = found @ discounts[: len(found)] / ideal
    return values


def mrr_at_k(ranked: Sequence[Sequence[Any]], relevant: Sequence[Mapping[Hashable, float]], k: int = 10) -> NDArray[np.float64]:
    """Reciprocal rank of the first relevant hit among the first ``k``, else 0 (Voorhees, "The TREC-8 question answering track
    report", 1999).

    Arguments and errors as ``ndcg_at_k``. Returns float64 [B].
    """
    _check(ranked, relevant, k)
    values = np.zeros(len(ranked))
    for query, (hits, gains) in enumerate(zip(ranked, relevant)):
        places = np.flatnonzero(_gains(hits, gains, k) > 0)
        if len(places):
            values[query] = 1 / (places[0] + 1)
    return values


def recall_at_k(scores: ArrayLike, exact_scores: ArrayLike, k: int = 10, *, tolerance: float = 1e-3) -> NDArray[np.float64]:
    """The share of the exact ``k`` best that a search found, counted by score: of equally good documents either one counts.

    A hit counts when it scores at least as much as the k-th exact result, less ``tolerance``. This is the recall of
    ann-benchmarks (Aumuller, Bernhardsson and Faithfull, 2018) and VIBE, with an absolute tolerance.

    Args:
        scores: [B, k'], the scores *at the exact search's budget and codec* of the documents a search found, in any order, each
            document once; -inf where a hit is missing. ``MetaIndex.score`` gives them.
        exact_scores: [B, k''], falling, of the exact search; -inf where it had fewer hits.
        k: how many results count, >= 1.
        tolerance: how far below the k-th score still counts, in units of score.

    Returns:
        float64 [B], in 0..1; 1 where the exact search found nothing.

    Raises:
        ValueError: not one row of scores for each query, or ``k`` below 1.
    """
    found, exact = np.asarray(scores, dtype=np.float64), np.asarray(exact_scores, dtype=np.float64)[:, :k]
    _check(found, exact, k)
    present = exact > -np.inf
    expected = present.sum(axis=1)
    last = np.min(exact, axis=1, where=present, initial=np.inf)
    counted = (found >= last[:, None] - tolerance).sum(axis=1)
    return np.where(expected == 0, 1.0, np.minimum(counted, expected) / np.maximum(expected, 1))


def _gains(hits: Sequence[Any], gains: Mapping[Hashable, float], k: int) -> NDArray[np.float64]:
    return np.array([gains.get(hit, 0.0) for hit in hits[:k]], dtype=np.float64)


def _check(ranked: Any, judged: Any, k: int) -> None:
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    if len(ranked) != len(judged):
        raise ValueError(f"expected results and judgements of the same queries, got {len(ranked)} and {len(judged)}")
