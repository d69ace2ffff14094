"""Why a document scored what it did: which of its tokens each query token chose, at every budget on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.types import Budget, Levels

_COLUMNS = 8  # as many budgets as a line has room for


@dataclass(frozen=True, eq=False)
class Reached:
    """One document's score at one budget on the way.

    ``tokens`` int64 [r_q]: the document token that each query token chose, the first of equals.
    ``similarities`` float32 [r_q]: their inner products; all add up to ``score``, the first n to the score at (n, r_c).
    """

    budget: Budget
    score: float
    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One document's score for one query at a budget, taken apart. Similarities are of decoded vectors, in float32.

    ``tokens`` int64 [r_q]: the document token that each query token chose, the first of equals.
    ``similarities`` float32 [r_q]: their inner products, whose sum is ``score``.
    ``build_up``: the same at each level edge ``(r_q, r_c)``, the budget last; scores never fall as r_c grows.
    """

    id: Any
    budget: Budget
    score: float
    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]
    build_up: tuple[Reached, ...] = field(repr=False)

    def __str__(self) -> str:
        shown = self.build_up
        if len(shown) > _COLUMNS:
            shown = tuple(shown[at] for at in np.linspace(0, len(shown) - 1, _COLUMNS).round().astype(int))
        lines = [
            f"document {self.id!r} scores {self.score:.4f} at {self.budget}",
            "  each query token chose document token: similarity",
            f"  {'query token':<12}" + "".join(f"{reached.budget!s:>15}" for reached in shown),
        ]
        for i in range(len(self.tokens)):
            cells = (f"{reached.tokens[i]:>5}: {reached.similarities[i]:+.4f}" for reached in shown)
            lines.append(f"  {i:>11} " + "".join(f"{cell:>15}" for cell in cells))
        lines.append(f"  {'score':<12}" + "".join(f"{reached.score:>15.4f}" for reached in shown))
        return "\n".join(lines)


def explain(id_: Any, similarities: NDArray[np.float64], levels: Levels, budget: Budget) -> Explanation:
    """Explain a score at ``budget`` by the ``similarities`` [r, t] of a query's and a document's tokens."""
    products = similarities[: budget.r_q, : budget.r_c].astype(np.float32)
    edges = [edge for edge in levels.edges if edge < products.shape[1]] + [products.shape[1]]
    build_up = tuple(_reached(products[:, :edge]) for edge in edges)
    last = build_up[-1]
    return Explanation(id_, budget, last.score, last.tokens, last.similarities, build_up)


def _reached(products: NDArray[np.float32]) -> Reached:
    """What all of the inner products [r_q, r_c] give."""
    similarities = products.max(axis=1)
    return Reached(Budget(*products.shape), float(similarities.sum()), products.argmax(axis=1), similarities)
