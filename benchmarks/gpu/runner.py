"""Runs one step after another, each as a process of its own, and keeps what came of it: a second call goes on where one ended.

A step's record is a JSON file in the state folder, written before it starts and again when it ends. Nothing here imports torch.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.culprits import Death, without_culprits
from benchmarks.gpu import DRY
from benchmarks.gpu.process import POISONED, ROOT, Done, finished
from metaindex.scoring.registry import Verdict

Record = dict[str, Any]

_ATTEMPTS = 2  # of a step during which the whole run was cut off


@dataclass(frozen=True)
class Context:
    """What the command lines of steps are made of."""

    state: Path
    wheelhouse: Path
    dry: bool = False
    seed: int = 0
    rounds: int = 5
    contestants: str = ""
    commit: str = ""


def by_exit_code(done: Done) -> Verdict:
    """Exit code 0 is good; else the last line that was printed tells why not."""
    lines = [line for line in done.text.splitlines() if line.strip()]
    why = done.why or f"exit code {done.code}" + (f": {lines[-1].strip()[:300]}" if lines else "")
    return Verdict(True, "") if not done.why and done.code == 0 else Verdict(False, why)


def by_rows(done: Done) -> Verdict:
    """Good where the process was, and no row of ours failed."""
    if not (verdict := by_exit_code(done)).ok:
        failed = [row["failed"] for row in done.rows if "failed" in row]
        return Verdict(False, "; ".join(failed)[:600]) if failed and not done.why else verdict
    ours = [row for row in done.rows if row.get("ours")]
    failed = [f"{row['contestant']}: {row['failed']}" for row in ours if "failed" in row]
    failed += [f"{row['contestant']}, as a graph: {row['graph_failed']}" for row in ours if "graph_failed" in row]
    return Verdict(not failed, "; ".join(dict.fromkeys(failed))[:600])


@dataclass(frozen=True)
class Step:
    """One process and how its result is read.

    Attributes:
        command: the command line, given a folder that is empty at its start and where it may leave ``rows.json``.
        expects: about how many seconds it takes, its compilations included; decides whether it is started before a deadline.
        limit: after so many seconds it is ended.
        judge: whether it passed, and why not.
        missing: why it can't run here, which is no failure.
        dry: whether a dry run runs it; else it shows the command line.
        race: whether it is run again without a contestant that brings it down.
        environment: added to its environment; ``{state}`` in a value is the state folder.
    """

    name: str
    about: str
    command: Callable[[Context, Path], list[str]]
    expects: int
    limit: int = 540
    judge: Callable[[Done], Verdict] = by_exit_code
    missing: Callable[[], str | None] = lambda: None
    dry: bool = True
    race: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class State:
    """The records of steps, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, name: str) -> Record | None:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def __setitem__(self, name: str, record: Record) -> None:
        fresh = self.folder / f"{name}.json.part"
        fresh.write_text(json.dumps(record))
        fresh.replace(self.folder / f"{name}.json")

    def forget(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def records(self, steps: Iterable[Step]) -> list[Record]:
        """Of those steps that have one, in their order."""
        return [record for step in steps if (record := self[step.name]) is not None]


def chosen(steps: Iterable[Step], patterns: Iterable[str]) -> list[Step]:
    """The steps whose names match one of the shell patterns; all without patterns."""
    wanted = list(patterns)
    return [step for step in steps if not wanted or any(fnmatch(step.name, pattern) for pattern in wanted)]


def waiting(state: State, step: Step) -> bool:
    """Whether a step has no result yet. One that was cut off twice counts as failed: it may be what cuts runs off."""
    record = state[step.name]
    if record is None:
        return True
    if record["status"] == "running" and record["attempts"] >= _ATTEMPTS:
        state[step.name] = record | {"status": "failed", "why": f"the run was cut off during it, {_ATTEMPTS} times"}
    return record["status"] == "running" and record["attempts"] < _ATTEMPTS


def run(
    steps: Iterable[Step],
    context: Context,
    *,
    seconds: float = float("inf"),
    say: Callable[[str], None] = print,
    after: Callable[[], None] = lambda: None,
) -> int:
    """Run the steps that wait, in order, but none that is expected to end after ``seconds``; call ``after`` each of them.
    Returns how many were passed over."""
    state, started, late = State(context.state), time.monotonic(), 0
    for step in steps:
        if not waiting(state, step):
            continue
        left = seconds - (time.monotonic() - started)
        if step.expects > left:
            late += 1
            continue
        say(f"{step.name}: {step.about}")
        record = one(step, context, state)
        say(f"{step.name}: {record['status']} after {record['seconds']:.0f} s{_because(record)}")
        after()
    return late


def _because(record: Record) -> str:
    return f": {record['why']}" if record["why"] else ""


def one(step: Step, context: Context, state: State) -> Record:
    """Run one step, whatever happens, and return its record."""
    before = state[step.name] or {"attempts": 0}
    record: Record = {
        "step": step.name,
        "about": step.about,
        "status": "running",
        "why": "",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "attempts": before["attempts"] + 1,
        "seconds": 0.0,
        "rows": [],
        "text": "",
    } | ({"dry_run": DRY} if context.dry else {})
    state[step.name] = record
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{step.name}-") as folder:
        command = step.command(context, Path(folder))
        shown = " ".join(command).replace(sys.executable, "python").replace(folder, "FOLDER")
        record["command"] = shown.replace(f"{ROOT}/", "")
        if (missing := step.missing()) is not None:
            record |= {"status": "skipped", "why": missing}
        elif context.dry and not step.dry:
            record |= {"status": "shown", "why": f"would run: {record['command']}"}
        else:
            done = _finished(step, command, context, Path(folder))
            try:
                verdict = step.judge(done)
            except Exception as error:  # what a broken process left may be unreadable
                verdict = Verdict(False, f"no verdict: {type(error).__name__}: {error}")
            record |= {"status": "passed" if verdict.ok else "failed", "why": verdict.why, "rows": done.rows, "text": done.text}
    record["seconds"] = time.monotonic() - started
    state[step.name] = record
    return record


def _finished(step: Step, command: list[str], context: Context, folder: Path) -> Done:
    deadline = time.monotonic() + step.limit

    deaths: list[Done] = []

    def attempt(excluded: dict[str, str]) -> Done | Death:
        line = [*command, "--excluded", json.dumps(excluded)] if step.race else command
        environment = {name: value.replace("{state}", str(context.state.resolve())) for name, value in step.environment.items()}
        if context.dry:
            environment["OMP_NUM_THREADS"] = "1"  # others may use this machine, and nothing is measured
        done = finished(line, folder, max(1.0, deadline - time.monotonic()), environment)
        mark = folder / "mark"
        if not step.race or done.why or (done.code >= 0 and done.code != POISONED) or not mark.exists():
            return done
        deaths.append(done)
        how = "left the device unusable" if done.code == POISONED else f"ended the process: {_signal(-done.code)}"
        return Death(how, mark.read_text())

    found = without_culprits(attempt)
    return deaths[-1]._replace(why=f"{found.culprit} {found.why}") if isinstance(found, Death) else found


def _signal(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name}, it took too long" if name == "SIGALRM" else name
