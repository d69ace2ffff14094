"""Renders result rows as markdown: what was measured stands beside how far it is from the roof, the best peer and the truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.cases import CASES, K

_HEAD = (
    "| contestant | median ms | best ms | of roof | of AMX roof | of best roof | best peer takes | error | decoded error "
    "| recall |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)

_LEGEND = f"""Times are milliseconds of wall clock for the whole batch, for everyone with the top {K} and without packing.
Contestants take turns in one process per case. *of roof*: the least time that memory reads and arithmetic allow for what the
contestant keeps, without matrix tiles (AMX), as a share of its median; above 100 % it uses tiles, or data that a cache holds.
*of AMX roof*: the same with tiles. *of best roof*: against the fastest codec and instructions of this machine. *best peer
takes*: the best other library's median divided by this one. *error*: the largest relative error of a returned score against
float64 on the original vectors; *decoded error*: against float64 on what the codec keeps. *recall*: how many of the true {K}
best were returned, by score.
"""


def render(rows: list[dict[str, Any]]) -> str:
    run = rows[0]["run"]
    machine = run["machine"]
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "unknown memory"
    lines = [
        f"# {machine['cpu']}, {machine['cores']} cores, {run['date'][:10]}",
        "",
        f"{', '.join(machine['flags'])}; {memory}; {machine['os']}; {machine['compiler']}; Python {machine['python']}; "
        f"huge pages {machine['huge_pages']}; commit {run['commit']}; seed {run['seed']}; at most {rows[0]['rounds']} rounds.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version) + ".",
        "",
    ]
    if rows[0]["quick"]:
        lines += ["**A quick run: fewer documents. It shows that everything works; its times mean little.**", ""]
    lines += [*_roofs(rows[0]["roofs"]), "", _LEGEND]
    for name in dict.fromkeys(row["case"] for row in rows):
        lines += _case(name, [row for row in rows if row["case"] == name])
    return "\n".join(lines).rstrip() + "\n"


def _roofs(rates: dict[str, dict[str, float]]) -> list[str]:
    names = list(next(iter(rates.values())))
    head = "| threads | " + " | ".join(name.replace("_gbs", " GB/s").replace("_gops", " GOP/s") for name in names) + " |"
    rule = "|--:|" + "--:|" * len(names)
    return [
        head,
        rule,
        *(f"| {threads} | " + " | ".join(f"{row[name]:,.0f}" for name in names) + " |" for threads, row in rates.items()),
    ]


def _case(name: str, rows: list[dict[str, Any]]) -> Iterable[str]:
    case, threads = CASES[name], rows[0]["shape"]["threads"]
    timed = sorted((row for row in rows if "median_ms" in row), key=lambda row: row["median_ms"])
    best_peer = min((row["median_ms"] for row in timed if not row["ours"]), default=None)
    yield from (f"## {name}: {case.about}", "", f"{threads} thread{'s' * (threads > 1)}.", "", _HEAD)
    for row in timed:
        label = f"**{row['contestant']}**" if row["ours"] else row["contestant"]
        ratio = "" if best_peer is None else f"{best_peer / row['median_ms']:.2f}x"
        shares = (_share(row[roof], row["median_ms"]) for roof in ("roof_ms", "roof_amx_ms", "best_roof_ms"))
        checks = (_error(row["error_original"]), _error(row["error_decoded"]), f"{row['recall']:.3f}")
        yield "| " + " | ".join([label, f"{row['median_ms']:.2f}", f"{row['best_ms']:.2f}", *shares, ratio, *checks]) + " |"
    yield ""
    failed = [row for row in rows if "failed" in row]
    yield from (f"- {row['contestant']}: {row['failed']}" for row in failed)
    if failed:
        yield ""


def _share(roof: float | None, median: float) -> str:
    return "" if roof is None else f"{100 * roof / median:.0f} %"


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
