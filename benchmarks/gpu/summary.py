"""What all steps came to: which passed, which targets were met, and the exit code that says both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks.gpu import DRY
from benchmarks.gpu.runner import Record

PASSED, FAILED, UNFINISHED = 0, 1, 3


class Aim(NamedTuple):
    """A target on one case and codec, the contestant that comes nearest to it, and its worst value."""

    case: str
    codec: str
    target: str
    contestant: str
    value: float
    met: bool


def rows(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield from record["rows"]


def aims(records: Iterable[Record]) -> list[Aim]:
    """Every target by case and codec. A contestant meets it where all its rows do; one contestant is enough, or where the
    target says so all have to."""
    found: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows(records):
        for target in row.get("targets", ()):
            key = row["case"], row["codec"], target["target"]
            found.setdefault(key, {}).setdefault(row["contestant"], []).append(target)
    return [_aim(key, by_contestant) for key, by_contestant in found.items()]


def _aim(key: tuple[str, str, str], by_contestant: dict[str, list[dict[str, Any]]]) -> Aim:
    def distance(target: dict[str, Any]) -> float:
        """How far off the bound, on whichever side is wrong: 0 where it is met."""
        return 0.0 if target["met"] else abs(target["value"] - target["bound"])

    worst = {name: max(targets, key=distance) for name, targets in by_contestant.items()}
    nearest = (max if next(iter(worst.values()))["every"] else min)(worst, key=lambda name: distance(worst[name]))
    return Aim(*key, nearest, worst[nearest]["value"], worst[nearest]["met"])


def exit_code(records: Iterable[Record], waiting: int) -> int:
    """UNFINISHED where steps have no result, else FAILED where one failed or a target was missed, else PASSED."""
    records = list(records)
    if waiting:
        return UNFINISHED
    failed = any(record["status"] == "failed" for record in records) or not all(aim.met for aim in aims(records))
    return FAILED if failed else PASSED


def table(records: Iterable[Record], waiting: int) -> str:
    """The table that ends a run."""
    records = list(records)
    lines = [f"*** {DRY} ***"] if any("dry_run" in record for record in records) else []
    width = max((len(record["step"]) for record in records), default=0)
    for record in records:
        lines.append(
            f"{record['step']:{width}}  {record['status']:8}{record['seconds']:6.0f} s  {record['why']}"[:160].rstrip()
        )
    found = aims(records)
    for aim in found:
        if not aim.met:
            lines.append(f"missed: {aim.case}, {aim.codec}: {aim.target}: {aim.value:.3g} by {aim.contestant}")
    met = sum(aim.met for aim in found)
    counts = {
        status: sum(record["status"] == status for record in records) for status in ("passed", "failed", "skipped", "shown")
    }
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    lines.append(f"{told or 'nothing ran'}, {waiting} without a result; {met} of {len(found)} targets met")
    return "\n".join(lines)
