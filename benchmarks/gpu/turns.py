"""The contestants of one case: prepared, checked against the oracle, and timed in turns."""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import problem
from benchmarks.gpu.card import AnyCard
from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.contestant import Entry, GpuContestant
from benchmarks.gpu.problem import Answer
from benchmarks.problem import Errors
from benchmarks.race import verdict
from metaindex.timing import interleave

GRAPH = "the graph of "
"""Before a contestant's name in the mark: only its graph is at work."""

_LIMIT_SECONDS = 40  # of timing, in which no round but the first three starts later
_FLUSHED_BELOW = 20  # times the size of the L2 cache: larger data leaves nothing of use in it

Key = tuple[str, int, "int | None"]  # contestant, r_c, k


class PoisonedError(Exception):
    """The device can't be used any more."""


class Turns:
    """``mark`` always holds the contestant at work, so that a crash has a culprit."""

    def __init__(self, case: GpuCase, card: AnyCard, seed: int, mark: Path, excluded: dict[str, str], patience: int) -> None:
        self.case, self.card, self.mark, self.excluded, self.patience = case, card, mark, excluded, patience
        self.problem = problem.make(case, seed, card.device)
        self.rows: dict[Key, dict[str, Any]] = {}
        self.calls: dict[Key, Callable[[], Answer]] = {}
        self.checks: dict[Key, Callable[[Answer], Errors]] = {}

    def prepare(self, name: str, contestant: GpuContestant | str) -> None:
        """Pack and check one contestant at every budget."""
        for r_c in self.case.read_tokens:
            rows = {(name, r_c, k): {"contestant": name, "r_c": r_c, "k": k, "ours": False} for k in self.case.ks}
            failed = contestant if isinstance(contestant, str) else self.excluded.get(name)
            if not isinstance(contestant, str):
                if why := contestant.why_not(self.case):
                    self.rows[name, r_c, None] = {"contestant": name, "r_c": r_c, "ours": contestant.ours, "left_out": why}
                    return
                for row in rows.values():
                    row |= {key: getattr(contestant, key) for key in ("package", "codec", "ours", "how")}
            self.rows |= rows
            if failed is not None or isinstance(contestant, str):
                for row in rows.values():
                    row["failed"] = failed
                continue
            self._started(name)
            try:
                entry = contestant.prepare(self.problem, r_c)
            except Exception as error:
                self._failed(error, list(rows.values()))
                continue
            for key, row in rows.items():
                self._check(key, row, entry, contestant.ours)

    def _check(self, key: Key, row: dict[str, Any], entry: Entry, ours: bool) -> None:
        name, r_c, k = key
        self._started(name)
        call = entry.scores if k is None else lambda: entry.best(k)
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                start = time.perf_counter()
                answer = call()
                self.card.wait()
                row["first_call_s"] = time.perf_counter() - start
            if told:
                row["warned"] = str(told[0].message)[:300]  # that it falls back, for one
            decoded = entry.decoded

            def checked(answer: Answer) -> Errors:
                return problem.errors(self.problem, answer, r_c, decoded, k=k)

            found = checked(answer)
            del answer
            row |= {"error_original": found.original, "error_decoded": found.decoded, "recall": found.recall}
            if (wrong := verdict(ours, found)) is not None:
                row["failed"] = wrong
                return
            row["extra_bytes"] = self.card.extra_bytes(call)
        except Exception as error:
            self._failed(error, [row])
            return
        self.calls[key], self.checks[key] = call, checked

    def time(self, rounds: int) -> None:
        """Add times to the rows: on the device, and where launching dominates of graphs and on the wall as well."""
        flushed = self.case.nbytes(2 * self.case.dim) < _FLUSHED_BELOW * self.card.cache_bytes
        clock = self.card.cold_seconds if flushed else self.card.seconds
        for key, timing in self._turns(self.calls, rounds, clock).items():
            self.rows[key] |= timing.row() | {"flushed": flushed}
        if not self.case.replayed:
            return
        for key, timing in self._turns(self.calls, rounds, self.card.wall_seconds).items():
            self.rows[key]["wall_ms"] = 1e3 * timing.median
        for key, timing in self._turns(self._graphs(), rounds, clock, GRAPH).items():
            self.rows[key]["graph_ms"] = 1e3 * timing.median

    def _graphs(self) -> dict[Key, Callable[[], Any]]:
        """The calls as graphs. Who brings the process down only as a graph is left out only there."""
        graphs = {}
        for key, call in self.calls.items():
            name = GRAPH + key[0]
            if name in self.excluded:
                self.rows[key]["graph_failed"] = self.excluded[name]
                continue
            self._started(name)
            try:
                replay = self.card.replay(call)
                replay().scores.fill_(float("nan"))  # so that a graph which does nothing is found out
                found = self.checks[key](replay())
                if wrong := verdict(self.rows[key]["ours"], found):
                    self.rows[key]["graph_failed"] = wrong
                else:
                    graphs[key] = replay
            except Exception as error:
                self.rows[key]["graph_failed"] = line(error)
                self._healthy()
        return graphs

    def _turns(self, calls: dict[Key, Callable[[], Any]], rounds: int, clock: Callable, kind: str = "") -> dict[Key, Any]:
        """Timings by key. Who fails now was right before, so the process ends, and the next one leaves it out."""
        by_name = {json.dumps(key): call for key, call in calls.items()}

        def before(name: str) -> None:
            self._started(kind + json.loads(name)[0])

        try:
            found = interleave(
                by_name,
                rounds=rounds,
                turn_seconds=self.card.turn_seconds,
                max_calls=50,
                limit_seconds=_LIMIT_SECONDS,
                before_turn=before,
                clock=clock,
            )
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise PoisonedError(line(error)) from error
        return {tuple(json.loads(name)): timing for name, timing in found.items()}  # type: ignore[misc]

    def _started(self, name: str) -> None:
        self.mark.write_text(name)
        signal.setitimer(signal.ITIMER_REAL, self.patience)

    def _failed(self, error: Exception, rows: list[dict[str, Any]]) -> None:
        traceback.print_exception(error, file=sys.stderr)
        for row in rows:
            row["failed"] = line(error)
        self._healthy()

    def _healthy(self) -> None:
        if not self.card.healthy():
            raise PoisonedError


def line(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
