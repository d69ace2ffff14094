"""The small values that every layer speaks: budgets and levels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from metaindex.checks import integer


class Budget(NamedTuple):
    """How many query and document tokens a comparison uses: the first ``r_q`` and the first ``r_c``."""

    r_q: int
    r_c: int

    def __str__(self) -> str:
        return f"({self.r_q},{self.r_c})"

    @classmethod
    def resolve(cls, budget: int | tuple[int, int] | None, query_tokens: int, doc_tokens: int) -> Budget:
        """The budget that a caller's ``budget`` argument means for queries of ``query_tokens`` and documents of ``doc_tokens``.

        ``None`` is everything. One number stands for both sides and is cut to each: 64 is ``(16, 64)`` where queries have
        16 tokens. A pair must lie in ``1..query_tokens`` and ``1..doc_tokens``.

        Raises:
            TypeError: neither ``None``, an integer nor a pair of integers.
            ValueError: a number below 1, or a pair outside the bounds.
        """
        if budget is None:
            return cls(query_tokens, doc_tokens)
        if isinstance(budget, (tuple, list)):
            if len(budget) != 2:
                raise ValueError(f"budget: expected a pair (r_q, r_c) or one number, got {len(budget)} members")
            r_q, r_c = (integer(f"budget {side}", number, least=0) for side, number in zip(("r_q", "r_c"), budget))
            sides = (("r_q", r_q, query_tokens), ("r_c", r_c, doc_tokens))
            if wrong := [f"{side} in 1..{tokens}" for side, number, tokens in sides if not 1 <= number <= tokens]:
                raise ValueError(f"budget: expected {' and '.join(wrong)}, got ({r_q}, {r_c}); one number is cut to both sides")
            return cls(r_q, r_c)
        number = integer("budget", budget)
        return cls(min(number, query_tokens), min(number, doc_tokens))


@dataclass(frozen=True)
class Levels:
    """Where the tokens of a document are cut into levels: level ``l`` holds tokens ``[start(l), stop(l))``.

    ``edges`` are the stops, rising; the last one is the largest number of tokens a document may have.
    """

    edges: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.edges:
            raise ValueError("levels: expected at least one edge")
        for before, after in zip((0, *self.edges), self.edges):
            if after <= before:
                raise ValueError(f"levels: expected rising edges of at least 1, got {before} before {after}")

    @classmethod
    def doubling(cls, tokens: int) -> Levels:
        """Edges 1, 2, 4, ... that end at ``tokens``."""
        return cls((1,)).extended_to(tokens)

    @classmethod
    def of(cls, edges: Iterable[int]) -> Levels:
        """Levels from the ``levels`` argument of an index, checked."""
        if not isinstance(edges, Iterable):
            raise TypeError(f"levels: expected edges such as (1, 4, 16, 64), got {edges!r}")
        return cls(tuple(integer("levels", edge) for edge in edges))

    def __len__(self) -> int:
        return len(self.edges)

    @property
    def tokens(self) -> int:
        """T, the largest number of tokens a document may have."""
        return self.edges[-1]

    def start(self, level: int) -> int:
        return self.edges[level - 1] if level else 0

    def stop(self, level: int) -> int:
        return self.edges[level]

    def width(self, level: int) -> int:
        return self.stop(level) - self.start(level)

    def needed(self, r_c: int) -> int:
        """How many levels, counted from level 0, hold the first ``r_c`` tokens."""
        return min(bisect_left(self.edges, r_c) + 1, len(self.edges))

    def extended_to(self, tokens: int) -> Levels:
        """These levels and as many more, doubling, as documents of ``tokens`` need. Existing edges never move."""
        edges = list(self.edges)
        while edges[-1] < tokens:
            edges.append(min(2 * edges[-1], tokens))
        return Levels(tuple(edges))
