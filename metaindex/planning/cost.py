"""What a stage costs, in rows, bytes and arithmetic: from the shape of the index, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from metaindex.types import Budget


@dataclass(frozen=True)
class StageCost:
    """The work of one stage for a batch of queries.

    ``rows``: documents compared, summed over the queries. ``nbytes``: document bytes read; a scan reads each document once
    for the whole batch. ``flop``: ``2 * r_q * tokens * d``, multiplications and additions.
    """

    rows: int
    nbytes: int
    flop: int


def scan_cost(rows: int, tokens: int, queries: int, budget: Budget, dim: int, bytes_per_token: int) -> StageCost:
    """All ``rows`` documents, which have ``tokens`` tokens below r_c between them, against ``queries`` queries."""
    return StageCost(rows * queries, tokens * bytes_per_token, 2 * budget.r_q * tokens * queries * dim)


def gather_cost(rows: int, tokens: int, budget: Budget, dim: int, bytes_per_token: int) -> StageCost:
    """``rows`` candidates over all queries, which have ``tokens`` tokens below r_c between them."""
    return StageCost(rows, tokens * bytes_per_token, 2 * budget.r_q * tokens * dim)
