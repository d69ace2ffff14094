"""Why a document scored what it did: which of its tokens each query token chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.types import Budget, Levels


@dataclass(frozen=True, eq=False)
class Explanation:
    """One document's score for one query at a budget, taken apart. Similarities are of decoded vectors, in float32.

    ``tokens`` int64 [r_q]: the document token that each query token chose, the first of equals.
    ``similarities`` float32 [r_q]: their inner products, whose sum is ``score``.
    ``build_up``: the score at each level edge ``(r_q, r_c)`` up to the budget; it never falls as r_c grows.
    """

    id: Any
    budget: Budget
    score: float
    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]
    build_up: tuple[tuple[Budget, float], ...] = field(repr=False)

    def __str__(self) -> str:
        lines = [f"document {self.id!r} scores {self.score:.4f} at {self.budget}"]
        lines += [
            f"  query token {i:>3} chose document token {token:>3}: {similarity:+.4f}"
            for i, (token, similarity) in enumerate(zip(self.tokens, self.similarities))
        ]
        lines += [f"  at {budget!s:<9} the score is {score:.4f}" for budget, score in self.build_up]
        return "\n".join(lines)


def explain(id_: Any, query: NDArray[np.float32], document: NDArray[np.float32], levels: Levels, budget: Budget) -> Explanation:
    """Explain the decoded ``query`` [R, d] against the decoded ``document`` [t, d] at ``budget``."""
    query, document = query[: budget.r_q], document[: budget.r_c]
    similarities = (query.astype(np.float64) @ document.astype(np.float64).T).astype(np.float32)
    chosen = similarities.argmax(axis=1)
    best = np.maximum.accumulate(similarities, axis=1).sum(axis=0)
    edges = [edge for edge in levels.edges if edge < len(document)] + [len(document)]
    build_up = tuple((Budget(len(query), edge), float(best[edge - 1])) for edge in edges)
    return Explanation(id_, budget, float(best[-1]), chosen, similarities.max(axis=1), build_up)
