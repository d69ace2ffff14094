"""Renders records as markdown: what was measured stands beside its floor, the best peer, the truth and the target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu import DRY, paper, summary
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.process import ROOT
from benchmarks.gpu.runner import Record

Row = dict[str, Any]

_LEGEND = """Times are the device's own, by events, for the whole batch; packing is outside for everyone. *top*: how many
documents were picked within that time, by each library's own means where it has some, else by torch.topk; "all": scores only.
*floor*: the longer of reading what the contestant keeps and multiplying it, at the rates measured in the same process, as a
share of its time. *peer*: the best other library's time, at the same tokens and top, divided by this one. *first*: the first
call, in a fresh process with an empty Triton cache. *work*: device memory at its peak during a call, the answer included.
*error*: the largest error of a checked score against float64 on the vectors as given, relative to the query's largest;
*decoded*: on what the codec keeps. *recall*: how many of the sampled documents that belong among the returned ones are there.
*met*: all of a row's targets."""

_COLUMNS = ("top", "ms", "best", "floor", "GB/s", "TFLOP/s", "peer", "first s", "work MiB", "error", "decoded", "recall", "met")
_WALL = ("graph us", "wall us")


def render(records: list[Record], waiting: int, plots: list[str]) -> str:
    lines = [*_head(records), "", "## Steps", "", "| step | result | seconds | |", "|---|---|--:|---|"]
    for record in records:
        lines.append(f"| {record['step']} | {record['status']} | {record['seconds']:.0f} | {_cell(record['why'])} |")
    lines += ["", *([f"{waiting} steps have no result yet.", ""] if waiting else []), *_aims(records)]
    if roofs := [row["roofs"] for record in records if record["step"] == "roofs" for row in record["rows"] if "roofs" in row]:
        lines += ["## The card", "", "| rate | |", "|---|--:|"]
        lines += [f"| {_rate_name(name)} | {rate:,.0f} |" for name, rate in roofs[0].items()]
        lines.append("")
    lines += [f"![{name}]({name})" for name in plots]
    lines += ["", *_firsts(records), *paper.table(list(summary.rows(records)))]
    lines += ["## Races", "", _LEGEND, ""]
    for record in records:
        if record["rows"] and record["step"].startswith("race-"):
            lines += _case(record["rows"])
    for record in records:
        if record["status"] == "failed" and record["text"]:
            lines += [
                f"## What {record['step']} printed",
                "",
                "```",
                record["text"].replace("```", "'''").replace(f"{ROOT}/", "").rstrip(),
                "```",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def run_of(records: list[Record]) -> Row:
    """The machine's record, as the step "machine" took it."""
    return next((row["run"] for row in summary.rows(records) if "run" in row), {})


def _head(records: list[Record]) -> Iterator[str]:
    run = run_of(records)
    card = run.get("gpu", {}).get("torch", {})
    smi = run.get("gpu", {}).get("nvidia_smi", {})
    yield f"# {card.get('name', 'no GPU')}, {run.get('date', 'no date')[:10]}"
    if any("dry_run" in record for record in records):
        yield f"\n**{DRY}. A CPU and plain Python stand in for the GPU and its kernels; no number below means anything.**"
    if not run:
        yield "\nThe machine's record is missing: the step `machine` has not run."
        return
    memory = f"{card['memory_bytes'] / 2**30:.0f} GiB" if "memory_bytes" in card else "no memory"
    machine = run["machine"]
    clocks = f"clocks at most {smi.get('clocks.max.sm', '?')} and {smi.get('clocks.max.mem', '?')}"
    host = f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}, Python {machine['python']}"
    yield f"\n{memory}; driver {smi.get('driver_version', '?')}; CUDA {card.get('cuda')}; {clocks}; {host}."
    yield f"Commit {run['commit']}."
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version) + "."


def _aims(records: list[Record]) -> Iterator[str]:
    yield from ("## Targets", "", "| case | codec | target | nearest | value | met |", "|---|---|---|---|--:|---|")
    for aim in summary.aims(records):
        met = "yes" if aim.met else "**no**"
        yield f"| {aim.case} | {aim.codec} | {aim.target} | {aim.contestant} | {aim.value:.3g} | {met} |"
    yield ""


def _firsts(records: list[Record]) -> Iterator[str]:
    found = [row for row in summary.rows(records) if "first_s" in row]
    if not found:
        return
    yield from (
        "## First calls",
        "",
        "Milliseconds in a fresh process with an empty Triton cache; then with another N, B, k.",
        "",
    )
    yield from ("| backend | class | first | other N | other B | other k | compiled again |", "|---|---|--:|--:|--:|--:|--:|")
    for row in found:
        times = (row[key] for key in ("first_s", "other_N_s", "other_B_s", "other_k_s"))
        cells = " | ".join(f"{1e3 * seconds:.0f}" for seconds in times)
        yield f"| {row['backend']} | {row['case']} | {cells} | {row['compiled_again']} |"
    yield ""


def _case(rows: list[Row]) -> Iterator[str]:
    case, shape = CASES[rows[0]["case"]], rows[0]["shape"]
    candidates = "" if shape["candidates"] is None else f"{shape['candidates']:,} candidates for each among "
    yield from (f"### {case.name}: {case.about}", "")
    documents = f"{shape['documents']:,} documents of {shape['doc_tokens']} tokens"
    yield f"{shape['queries']} x {shape['query_tokens']} query tokens; {candidates}{documents}, d = {shape['dim']}."
    if "shrunk" in rows[0]:
        yield f"**Shrunk to fit: {rows[0]['shrunk']}.**"
    several, wall = len({row["r_c"] for row in rows}) > 1, any("wall_ms" in row for row in rows)
    columns = ("contestant", *(("r_c", "of share") if several else ()), *_COLUMNS, *(_WALL if wall else ()))
    yield from ("", "| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|")
    timed = [row for row in rows if "median_ms" in row]
    for row in sorted(timed, key=lambda row: (row["r_c"], row["k"] or 0, row["median_ms"])):
        yield "| " + " | ".join(_cells(row, shape, several, wall)) + " |"
    yield ""
    notes = [f"- {row['contestant']}: {_cell(row['failed'])}" for row in rows if "failed" in row]
    notes += [f"- {row['contestant']}: stays away: {row['left_out']}" for row in rows if "left_out" in row]
    notes += [f"- {row['contestant']}, as a graph: {_cell(row['graph_failed'])}" for row in rows if "graph_failed" in row]
    notes += [f"- {row['contestant']} warned: {_cell(row['warned'])}" for row in rows if "warned" in row]
    yield from (*dict.fromkeys(notes), "")


def _cells(row: Row, shape: Row, several: bool, wall: bool) -> Iterator[str]:
    yield f"**{row['contestant']}**" if row["ours"] else row["contestant"]
    if several:
        yield from (str(row["r_c"]), f"{row['of_share']:.2f}" if row.get("of_share") else "")
    scored = shape["documents"] if shape["candidates"] is None else shape["candidates"]
    operations = 2 * shape["queries"] * shape["query_tokens"] * scored * row["r_c"] * shape["dim"]
    yield from ("all" if row["k"] is None else str(row["k"]), f"{row['median_ms']:.3f}", f"{row['best_ms']:.3f}")
    yield f"{100 * row['of_floor']:.0f} %"
    yield f"{row['memory_ms'] / row['median_ms'] * row['roofs']['read_gbs']:,.0f}"
    yield f"{operations / row['median_ms'] / 1e9:,.1f}"
    yield f"{row['peer_ratio']:.2f}x" if "peer_ratio" in row else ""
    yield f"{row['first_call_s']:.2f}"
    yield "" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 2**20:.0f}"
    yield from (_error(row["error_original"]), _error(row["error_decoded"]), f"{row['recall']:.2f}")
    yield "" if not row.get("targets") else "yes" if row["met"] else "**no**"
    if wall:
        yield from (f"{1e3 * row[key]:.1f}" if key in row else "" for key in ("graph_ms", "wall_ms"))


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _rate_name(name: str) -> str:
    return name.replace("_gbs", " GB/s").replace("_gops", " GOP/s").replace("_", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]
