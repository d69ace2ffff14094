"""The files a run leaves: JSON lines, one report, plots; and the way back from the lines to the state of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.gpu import plots, report, summary
from benchmarks.gpu.process import ROOT
from benchmarks.gpu.runner import Record, State


def write(records: list[Record], waiting: int, folder: Path, *, dry: bool, pictures: bool = True) -> list[Path]:
    """``<date>-<card>.jsonl``, ``.md``, with what failed steps printed, and with ``pictures`` plots, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / stem_of(records, dry)
    lines = []
    run = report.run_of(records)
    for record in records:
        text = record["text"].replace(f"{ROOT}/", "") if record["status"] == "failed" else ""
        lines.append({**record, "rows": len(record["rows"]), "text": text})
        lines += [{"step": record["step"], **row} | ({} if "run" in row else {"run": run}) for row in record["rows"]]
    data = stem.with_name(f"{stem.name}.jsonl")
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = plots.draw(list(summary.rows(records)), stem, dry=dry) if pictures else []
    page = stem.with_name(f"{stem.name}.md")
    page.write_text(report.render(records, waiting, [picture.name for picture in drawn]))
    return [data, page, *drawn]


def stem_of(records: list[Record], dry: bool) -> str:
    run = report.run_of(records)
    card = run.get("gpu", {}).get("torch", {}).get("name", "no gpu")
    slug = "-".join(re.findall(r"[a-z0-9]+", card.lower()))
    date = run.get("date") or (records[0]["date"] if records else "nothing")
    return f"{'dry-run-' if dry else ''}{date[:10]}-{slug}"


def restore(lines: Path, state: State) -> int:
    """Put the records of an earlier run's JSON lines into an empty place of the state each. Returns how many."""
    records: dict[str, Record] = {}
    for line in map(json.loads, lines.read_text().splitlines()):
        name = line["step"]
        if "status" in line:
            records[name] = line | {"rows": []}
        else:
            keep_run = name == "machine"
            row = {key: value for key, value in line.items() if key != "step" and (key != "run" or keep_run)}
            records[name]["rows"].append(row)
    missing = {name: record for name, record in records.items() if state[name] is None}
    for name, record in missing.items():
        state[name] = record
    return len(missing)
