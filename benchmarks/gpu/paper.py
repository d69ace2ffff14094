"""MetaEmbed's table of what a budget costs (arXiv 2509.18095, 7B: d = 3584, 100,000 documents in bfloat16, one A100), beside
what was measured here.

Its times at (8,16) and (16,64) are less than an A100 takes to read the documents once, so they must be shares of a batch; that
batch is not told. They stand beside the time per query of batches, never beside a single query's alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.cases import CASES, PAPER

Row = dict[str, Any]

BATCH = 64
# By budget: GFLOP per query and milliseconds of scoring, as printed in the paper.
PUBLISHED: dict[tuple[int, int], tuple[float, float]] = {
    (1, 1): (0.71, 1.67),
    (8, 16): (91.75, 1.92),
    (16, 64): (733.89, 6.25),
}
_COLUMNS = (
    "budget",
    "GFLOP per query",
    "index GiB in 16 bits",
    "paper, A100 ms",
    "one query, float16 ms",
    "one query, int8 ms",
    f"per query of {BATCH}, float16 ms",
    f"per query of {BATCH}, int8 ms",
    "best peer, one query",
    f"best peer, per query of {BATCH}",
)
_CAVEAT = f"""The paper's times are of another card, and at (8,16) and (16,64) they are shorter than reading the documents
once takes there (45.9 GB in 6.25 ms would be 7.3 TB/s): they must be per query of a batch whose size is not told. Compare them
with the columns per query of {BATCH} at most. Ours are the faster scorer's medians, top 100 included, documents in the card's
memory."""


def table(rows: list[Row]) -> Iterator[str]:
    """The table in markdown; nothing before one of its cases has run. Times of a shrunk case are of what it shrank to."""
    names = {name(budget, queries) for budget in PAPER for queries in (1, BATCH)}
    timed = [row for row in rows if row.get("case") in names and "median_ms" in row]
    if not timed:
        return
    yield from ("## The seed paper's table", "", _CAVEAT, "")
    yield from ("| " + " | ".join(_COLUMNS) + " |", "|" + "--:|" * len(_COLUMNS))
    for budget in PAPER:
        gflop, milliseconds = PUBLISHED.get(budget, (None, None))
        case = CASES[name(budget, 1)]
        cells = [
            f"({budget[0]},{budget[1]})",
            f"{gflop or case.operations / 1e9:.2f}",
            f"{case.nbytes(2 * case.dim) / 2**30:.2f}",
        ]
        cells.append("" if milliseconds is None else f"{milliseconds:.2f}")
        cells += [_fastest(timed, budget, queries, codec, True) for queries in (1, BATCH) for codec in ("float16", "int8")]
        cells += [_fastest(timed, budget, queries, None, False) for queries in (1, BATCH)]
        yield "| " + " | ".join(cells) + " |"
    shrunk = {row["case"]: row["shrunk"] for row in timed if "shrunk" in row}
    yield from ("", *(f"- {case}: {why}" for case, why in shrunk.items()), "")


def name(budget: tuple[int, int], queries: int) -> str:
    return f"me-{budget[0]}-{budget[1]}" + (f"-q{queries}" if queries > 1 else "")


def _fastest(rows: list[Row], budget: tuple[int, int], queries: int, codec: str | None, ours: bool) -> str:
    """Milliseconds per query of the fastest such row."""
    times = [
        row["median_ms"] / row["shape"]["queries"]
        for row in rows
        if row["case"] == name(budget, queries) and row["ours"] == ours and codec in (None, row["codec"])
    ]
    return f"{min(times):.3f}" if times else ""
