"""What is aimed at, as data, and whether a row reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.cases import PAPER, GpuCase

Row = dict[str, Any]
Rows = list[Row]

WORKING_BYTES = 256 << 20  # of a search, besides its answer


@dataclass(frozen=True)
class Target:
    """``value`` of a row of ours, given all rows of its case, should be at least ``bound``, or with ``most`` at most that.
    ``None``: the target says nothing of that row. ``every``: all scorers have to meet it; else one of them is enough."""

    text: str
    bound: float
    value: Callable[[Row, Rows, GpuCase], float | None]
    most: bool = False
    every: bool = False

    def judge(self, row: Row, rows: Rows, case: GpuCase) -> Row | None:
        value = self.value(row, rows, case)
        if value is None:
            return None
        met = value <= self.bound if self.most else value >= self.bound
        return {"target": self.text, "value": value, "bound": self.bound, "met": met, "every": self.every}


def _of_bandwidth(*codecs: str) -> Callable[[Row, Rows, GpuCase], float | None]:
    def value(row: Row, rows: Rows, case: GpuCase) -> float | None:
        return row["memory_ms"] / row["median_ms"] if not codecs or row["codec"] in codecs else None

    return value


def _of_bf16_rate(row: Row, rows: Rows, case: GpuCase) -> float | None:
    if row["codec"] not in ("float16", "bfloat16"):
        return None
    return case.at(row["r_c"]).operations / row["roofs"]["bfloat16_gops"] / 1e6 / float(row["median_ms"])


def _of_peer(row: Row, rows: Rows, case: GpuCase) -> float | None:
    return row.get("peer_ratio") if row["codec"] == "float16" else None


def _of_own_float16(row: Row, rows: Rows, case: GpuCase) -> float | None:
    if row["codec"] != "int8":
        return None
    name = row["contestant"].replace("int8", "float16")
    wide = _timed(rows, contestant=name, r_c=row["r_c"], k=row["k"])
    return wide["median_ms"] / row["median_ms"] if wide else None


def _graph_us(row: Row, rows: Rows, case: GpuCase) -> float | None:
    return 1e3 * row["graph_ms"] if "graph_ms" in row else None


def _prefix_excess(row: Row, rows: Rows, case: GpuCase) -> float | None:
    """How much more than its share of the full scan a budget that ends at a level's edge takes, 20 us forgiven."""
    share = prefix_share(row, rows, case)
    at_edge = row["r_c"] & (row["r_c"] - 1) == 0
    return (row["median_ms"] - 0.02) / share if share and at_edge and row["r_c"] < case.doc_tokens else None


def prefix_share(row: Row, rows: Rows, case: GpuCase) -> float | None:
    """r_c / T of the time that the same contestant takes for all tokens, in milliseconds."""
    full = _timed(rows, contestant=row["contestant"], r_c=case.doc_tokens, k=row["k"])
    return row["r_c"] / case.doc_tokens * full["median_ms"] if full else None


def _working_mib(row: Row, rows: Rows, case: GpuCase) -> float | None:
    if row["extra_bytes"] is None:
        return None
    width = case.scored if row["k"] is None else min(row["k"], case.scored)
    answer = case.queries * width * (4 if row["k"] is None else 12)
    return max(0, row["extra_bytes"] - answer) / 2**20


_MEMORY = Target("at most 256 MiB besides the answer", WORKING_BYTES / 2**20, _working_mib, most=True, every=True)

TARGETS: dict[str, tuple[Target, ...]] = {
    "corpus-10k": (Target("as fast as the best peer in float16", 1.0, _of_peer),),
    "tok64-1M": (
        Target("90 % of the bandwidth in float16", 0.90, _of_bandwidth("float16")),
        Target("int8 1.8 times as fast as float16", 1.8, _of_own_float16),
    ),
    "tok64-100k-q64": (
        Target("65 % of the bf16 rate", 0.65, _of_bf16_rate),
        Target("int8 1.6 times as fast as float16", 1.6, _of_own_float16),
    ),
    "me-16-64-q64": (Target("75 % of the bf16 rate", 0.75, _of_bf16_rate),),
    "rerank-1": (Target("25 us by graph replay", 25.0, _graph_us, most=True),),
    "rerank-64": (Target("85 % of the bandwidth", 0.85, _of_bandwidth()),),
    "budget": (Target("r_c / 64 of the full scan at level edges, 10 % and 20 us more", 1.10, _prefix_excess, most=True),),
} | {f"me-{r_q}-{r_c}": (Target("90 % of the bandwidth", 0.90, _of_bandwidth()),) for r_q, r_c in PAPER}


def of_case(case: GpuCase) -> tuple[Target, ...]:
    return (*TARGETS.get(case.name, ()), _MEMORY)


def judged(case: GpuCase, rows: Rows) -> Rows:
    """The rows with the best peer's ratio and, in those of ours, each target's value and whether it is met."""
    for row in rows:
        if "median_ms" not in row:
            continue
        peers = [each for each in rows if "median_ms" in each and not each["ours"] and each["r_c"] == row["r_c"]]
        best = min((each for each in peers if each["k"] == row["k"]), key=lambda each: each["median_ms"], default=None)
        if best is not None:
            row |= {"best_peer": best["contestant"], "peer_ratio": best["median_ms"] / row["median_ms"]}
        if row["ours"] and len(case.read_tokens) > 1:
            share = prefix_share(row, rows, case)
            row["of_share"] = share and row["median_ms"] / share
    for row in rows:
        if row.get("ours") and "median_ms" in row:
            verdicts = [target.judge(row, rows, case) for target in of_case(case)]
            row["targets"] = [verdict for verdict in verdicts if verdict is not None]
            row["met"] = all(verdict["met"] for verdict in row["targets"])
    return rows


def _timed(rows: Rows, **wanted: Any) -> Row | None:
    return next((row for row in rows if "median_ms" in row and all(row[key] == value for key, value in wanted.items())), None)
