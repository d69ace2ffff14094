"""Every file call of an operation failed, cut short or killed in turn; runs in a process with the shim preloaded."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from metaindex import MetaIndex
from metaindex.errors import MetaIndexError, ReadOnlyError
from tests.storage.faults import shim
from tests.storage.faults.model import Model, View, applied, expected, leftovers, opened, perform, summary, vectors, view
from tests.storage.faults.operations import COPY, INDEX, LATER, Operation, build, states
from tests.storage.faults.shim import CHANGES, READS, Shim, Tree

ENOUGH = 10  # a worker that found so much wrong looks no further


class Fault(NamedTuple):
    """``counted`` kinds are numbered; the fault meets those of ``kinds`` among them."""

    name: str
    kinds: str
    action: int
    code: int = 0
    sticky: bool = False
    counted: str = CHANGES

    @property
    def kills(self) -> bool:
        return self.action in (shim.KILL_BEFORE, shim.KILL_AFTER)


FAULTS = [
    Fault("no space", "CWTRML", shim.FAIL, errno.ENOSPC),
    Fault("no space from here on", "CWML", shim.FAIL, errno.ENOSPC, sticky=True, counted="CWML"),
    Fault("I/O error", CHANGES, shim.FAIL, errno.EIO),
    Fault("I/O errors from here on", CHANGES, shim.FAIL, errno.EIO, sticky=True),
    Fault("interrupted call", "CNWTSD", shim.FAIL, errno.EINTR),
    Fault("short write", "W", shim.SHORT),
    Fault("read error", READS, shim.FAIL, errno.EIO, counted=READS),
    Fault("short read", "P", shim.SHORT, counted=READS),
    Fault("killed before", CHANGES, shim.KILL_BEFORE),
    Fault("killed after", CHANGES, shim.KILL_AFTER),
]


class Case(NamedTuple):
    fault: Fault
    at: int
    kind: str


class Attempt(NamedTuple):
    """What the process that ran the operation saw. ``wrong`` is an error that no caller expects."""

    calls: str = ""
    error: str | None = None
    ids: list[int] | None = None
    shown: View | None = None
    written: str | None = None  # "done", or the name of the error of a following write
    shown_after: View | None = None


class Bench:
    """One operation on indexes of one codec, in a folder of its own."""

    def __init__(self, operation: Operation, codec: str, folder: Path) -> None:
        self.operation, self.codec, self.folder = operation, codec, folder
        self.states = states(operation)
        self.base: Tree = {}
        for name, base in ((INDEX, operation.base), (COPY, operation.replaced)):
            if base is not None:
                made = shim.in_child(build, base, folder / base, codec)
                assert not made.error, made.error
                self.base |= {name: None, **{f"{name}/{path}": data for path, data in shim.read_tree(folder / base).items()}}
                shutil.rmtree(folder / base)
        self.control = Shim()

    def attempt(self, around: Path, fault: Fault | None, at: int, counted: str) -> Attempt:
        """In a child: the operation with a fault, a look, a write, a look."""
        self.control.watch(around)
        index = None
        if self.operation.base is not None:
            index = MetaIndex.open(around / INDEX, "r+", num_threads=1)
        if fault is None:
            self.control.arm(counted)
        else:
            self.control.arm(fault.counted, at, fault.action, fault.code, fault.sticky)
        error = None
        try:
            made = self.operation.run(index, around, self.codec)
            index = made if index is None else index
        except (OSError, MetaIndexError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        calls = self.control.disarm()
        if index is None:
            return Attempt(calls, error)
        ids, shown = list(index), None
        try:
            shown = view(index)
        except ReadOnlyError:  # the catalog has to be undone first, and this handle can't any more
            if error is None or fault is None or not fault.sticky:
                raise
        if len(index) and fault is not None and fault.sticky:  # a search asks the catalog for nothing
            assert set(ids) == set(index.search(vectors(1, 2), k=len(index)).ids[0].tolist())
        try:
            perform(index, LATER)
            written = "done"
        except ReadOnlyError as raised:
            written = f"{type(raised).__name__}: {raised}"
        after = None if shown is None else view(index)
        index.close()
        return Attempt(calls, error, ids, shown, written, after)

    def calls(self, counted: str) -> str:
        """The kinds of calls that the operation makes when nothing fails."""
        around = self.folder / "plain"
        shim.write_tree(around, self.base)
        outcome = shim.in_child(self.attempt, around, None, 0, counted)
        shutil.rmtree(around)
        assert outcome.error is None, outcome.error
        assert outcome.value.error is None, outcome.value.error
        return str(outcome.value.calls)

    def cases(self) -> list[Case]:
        made = {counted: self.calls(counted) for counted in {fault.counted for fault in FAULTS}}
        found = []
        for fault in FAULTS:
            kinds = made[fault.counted]
            # Killed after a call is killed before the next one, but for the last.
            first = len(kinds) if fault.action == shim.KILL_AFTER else 1
            found += [Case(fault, at, kind) for at, kind in enumerate(kinds, 1) if at >= first and kind in fault.kinds]
        return found

    def run(self, case: Case) -> list[str]:
        """What is wrong after a fault, nothing by rights."""
        around = self.folder / f"case-{os.getpid()}"
        shim.write_tree(around, self.base)
        outcome = shim.in_child(self.attempt, around, case.fault, case.at, "")
        where = f"{self.operation.name}, {self.codec}: {case.fault.name} at call {case.at} ({case.kind})"
        try:
            wrong = self._wrong(case, outcome, around)
        finally:
            shutil.rmtree(around)
        return [f"{where}: {one}" for one in wrong]

    def _wrong(self, case: Case, outcome: shim.Outcome, around: Path) -> list[str]:
        if outcome.error:
            return [outcome.error]
        if outcome.killed != case.fault.kills:
            return ["the process was killed" if outcome.killed else "the process was not killed"]
        attempt = None if outcome.killed else outcome.value
        harmless = case.fault.name == "short write" or (case.fault.code == errno.EINTR and case.kind in "CNWT")
        if harmless and attempt is not None and attempt.error:
            return [f"it could have gone on, and raised {attempt.error}"]
        wanted = {name: self._wanted(name, attempt) for name in self.states}
        wrong = [] if attempt is None else self._wrong_handle(case, attempt)
        if attempt is not None and attempt.shown_after is not None:
            wanted[INDEX] = [attempt.shown_after]  # checked above, and no longer open
        try:
            seen = look(around, list(self.states))
        except Exception:
            return [*wrong, f"afterwards: {traceback.format_exc()[-3000:]}"]
        for name, (shown, left) in seen.items():
            if shown not in wanted[name]:
                wrong.append(f"{name} holds {short(shown)}, expected one of {[*map(short, wanted[name])]}")
            wrong += [f"{name} has {one!r} left" for one in left]
        if not case.fault.kills and not case.fault.sticky:
            names = set(os.listdir(around)).difference(self.states)
            wrong += [f"left beside the index: {name}" for name in sorted(names)]
        return wrong

    def _wanted(self, name: str, attempt: Attempt | None) -> list[View | None]:
        before, after = self.states[name]
        if attempt is not None and attempt.error is None:
            return [self._shown(after)]
        return [self._shown(before), self._shown(after)]

    def _wrong_handle(self, case: Case, attempt: Attempt) -> list[str]:
        """What the handle that met the fault does wrong."""
        if attempt.ids is None:
            return []
        wrong = []
        wanted = self._wanted(INDEX, attempt)
        if attempt.ids not in [[id_ for id_, *_ in one or ()] for one in wanted]:
            wrong.append(f"the handle names {attempt.ids}, expected one of {[*map(short, wanted)]} ({attempt.error})")
        if attempt.shown is None:
            return wrong
        if attempt.shown not in wanted:
            wrong.append(f"the handle shows {short(attempt.shown)}, expected one of {[*map(short, wanted)]} ({attempt.error})")
        later = attempt.shown
        if attempt.written == "done":
            later = [*attempt.shown, *expected(applied({}, LATER), self.codec)]
        elif attempt.error is None and not (self.operation.base is None and case.kind == "N"):  # SQLite then opens to read
            wrong.append(f"the call returned, and a following write raised {attempt.written}")
        changes = self.operation.base is not None and not self.operation.copies
        if changes and attempt.error and case.kind in "SD" and case.fault.code == errno.EIO and attempt.written == "done":
            wrong.append(f"a sync failed, and the handle wrote on ({attempt.error})")
        if case.fault.code == errno.ENOSPC and attempt.written != "done":
            wrong.append(f"with space again a following write raised {attempt.written} ({attempt.error})")
        if attempt.shown_after != later:
            wrong.append(f"after a following write ({attempt.written}) the handle shows {short(attempt.shown_after)}")
        return wrong

    def _shown(self, model: Model | None) -> View | None:
        return None if model is None else expected(model, self.codec)


def look(around: Path, names: list[str]) -> dict[str, tuple[View | None, list[str]]]:
    """In a process that wrote none of it: what indexes hold for a reader and a writer, and what the writer leaves there."""
    return {name: _look(around, name) for name in names}


def _look(around: Path, name: str) -> tuple[View | None, list[str]]:
    path = around / name
    if not os.path.lexists(path):
        # Killed between two renames: the folder that was to be replaced stands beside its place, as the format says.
        aside = [found for found in os.listdir(around) if found.startswith(f".{name}.") and found.endswith(".staging.replaced")]
        if not aside:
            return None, []
        os.rename(around / aside[0], path)
    with opened(path) as reader:
        shown = view(reader)
    with MetaIndex.open(path, "r+", num_threads=1) as writer:
        if (second := view(writer)) != shown:
            raise AssertionError(f"a writer sees {summary(second)}, a reader saw {summary(shown)}")
    return shown, leftovers(path)


def short(shown: View | None) -> Any:
    return None if shown is None else summary(shown)


def run(operation: Operation, codec: str, folder: Path) -> tuple[Counter[str], list[str]]:
    """All faults of one operation: how many cases there were, by fault, and what was wrong."""
    bench = Bench(operation, codec, folder)
    cases = bench.cases()
    wrong = shim.shared_out(partial(_run_all, bench), cases)
    return Counter(case.fault.name for case in cases), wrong


def _run_all(bench: Bench, cases: list[Case]) -> list[str]:
    wrong: list[str] = []
    for case in cases:
        wrong += bench.run(case)
        if len(wrong) >= ENOUGH:
            break
    return wrong
