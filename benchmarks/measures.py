"""Measured values held against targets, as rows of JSON and as one table: what the programs beside the race share."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Measures:
    """The rows of a run."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(
        self, case: str, what: str, unit: str, runs: Sequence[float], *, most: float = 0, least: float = 0, **more: Any
    ) -> None:
        """The median of ``runs``, held against a target: at most ``most`` and at least ``least`` where they are given."""
        value = statistics.median(runs)
        target = f"{least:g} to {most:g}" if most and least else f"<= {most:g}" if most else f">= {least:g}" if least else None
        met = None if target is None else bool(value >= least and (not most or value <= most))
        self.rows.append(
            {"case": case, "what": what, "value": value, "unit": unit, "target": target, "met": met, "runs": list(runs), **more}
        )
        print(f"  {what}: {value:,.3g} {unit}{'' if target is None else f' (target {target})'}", file=sys.stderr, flush=True)


def render(title: str, rows: Sequence[dict[str, Any]], about: str) -> str:
    """A table of rows that have the run's record; ``about`` goes before it."""
    run = rows[0]["run"]
    lines = [
        f"# {title}: {run['machine']['cpu']}, {run['machine']['cores']} cores, {run['date'][:10]}",
        "",
        f"{about}{run['machine']['os']}; Python {run['machine']['python']}; commit {run['commit']}; seed {run['seed']}.",
        "",
    ]
    if rows[0]["quick"]:
        lines += ["**A quick run: less of everything. It shows that everything works; its numbers mean little.**", ""]
    lines += ["| case | what | median | unit | target | met | runs |", "|---|---|--:|---|---|---|--:|"]
    for row in rows:
        met = "" if row["met"] is None else "yes" if row["met"] else "**no**"
        cells = (row["case"], row["what"], f"{row['value']:,.3g}", row["unit"], row["target"] or "", met, str(len(row["runs"])))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def publish(out: Path | None, rows: Sequence[dict[str, Any]], text: str) -> None:
    """Print the table ``text`` of a run, and write it with its rows where ``out`` says."""
    print(text)
    if out is not None:
        write(out, rows, text)
        print(f"wrote {out} and {out.with_suffix('.md')}", file=sys.stderr)


def write(out: Path, rows: Sequence[dict[str, Any]], text: str) -> None:
    """``rows`` as JSON lines, and their table beside them as markdown."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out.with_suffix(".md").write_text(text)
