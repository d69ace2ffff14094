"""One case in one process: prepare every contestant, check its answers, then time all of them in turns.

The process is fresh and Triton's cache empty, because others choose their tiles by less than the shape. Exit code ``POISONED``:
the contestant named in the file ``mark`` left the device unusable.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu import DRY, fit, problem, roofs, targets
from benchmarks.gpu.card import AnyCard, card
from benchmarks.gpu.cases import CASES, GpuCase
from benchmarks.gpu.contestant import Entry, GpuContestant
from benchmarks.gpu.floors import floor
from benchmarks.gpu.process import POISONED
from benchmarks.race import verdict
from metaindex.bench.timing import interleave
from metaindex.codecs import CODECS

# In the order of preparation: those that may bring the process down come first, so that little is prepared twice.
PEERS = (
    "benchmarks.gpu.peers.late_interaction",
    "benchmarks.gpu.peers.flash",
    "benchmarks.gpu.peers.torch_chunks",
    "benchmarks.gpu.peers.sentence_transformers_maxsim",
)
PATIENCE = 240  # seconds for one contestant's turn; then the process ends with SIGALRM, and the case runs without it
LIMIT_SECONDS = 40  # of timing, in which no round but the first three starts later
GRAPH = "the graph of "
"""Before a contestant's name in ``mark``: only its graph is at work."""
_FLUSHED_BELOW = 20  # times the size of the L2 cache: larger data leaves nothing of use in it

Key = tuple[str, int, "int | None"]  # contestant, r_c, k


class PoisonedError(Exception):
    """The device can't be used any more."""


def contestants(case: GpuCase, dry: bool) -> Iterator[tuple[str, GpuContestant | str]]:
    """Every contestant by name, or why its module can't be imported."""
    for module in PEERS if case.peers else ():
        try:
            for peer in importlib.import_module(module).PEERS:
                yield peer.name, peer
        except Exception as error:
            yield module.rpartition(".")[2], _line(error)
    from benchmarks.gpu.ours import ours

    for one in ours(case, dry):
        yield one.name, one


class Race:
    """``mark`` always holds the contestant at work, so that a crash has a culprit."""

    def __init__(self, case: GpuCase, card: AnyCard, seed: int, mark: Path, excluded: dict[str, str], patience: int) -> None:
        self.case, self.card, self.mark, self.excluded, self.patience = case, card, mark, excluded, patience
        self.problem = problem.make(case, seed, card.device)
        self.rows: dict[Key, dict[str, Any]] = {}
        self.calls: dict[Key, Callable[[], Any]] = {}

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
            found = problem.errors(self.problem, answer, r_c, entry.decoded, k=k)
            del answer
            row |= {"error_original": found.original, "error_decoded": found.decoded, "recall": found.recall}
            if (wrong := verdict(ours, found)) is not None:
                row["failed"] = wrong
                return
            row["extra_bytes"] = self.card.extra_bytes(call)
        except Exception as error:
            self._failed(error, [row])
            return
        self.calls[key] = call

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
                graphs[key] = self.card.replay(call)
            except Exception as error:
                self.rows[key]["graph_failed"] = _line(error)
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
                limit_seconds=LIMIT_SECONDS,
                before_turn=before,
                clock=clock,
            )
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise PoisonedError(_line(error)) from error
        return {tuple(json.loads(name)): timing for name, timing in found.items()}  # type: ignore[misc]

    def _started(self, name: str) -> None:
        self.mark.write_text(name)
        signal.setitimer(signal.ITIMER_REAL, self.patience)

    def _failed(self, error: Exception, rows: list[dict[str, Any]]) -> None:
        traceback.print_exception(error, file=sys.stderr)
        for row in rows:
            row["failed"] = _line(error)
        self._healthy()

    def _healthy(self) -> None:
        if not self.card.healthy():
            raise PoisonedError


def race(
    case: GpuCase,
    card: AnyCard,
    mark: Path,
    *,
    seed: int = 0,
    rounds: int = 5,
    only: str = "",
    excluded: dict[str, str] | None = None,
    patience: int = 0,
    dry: bool = False,
) -> list[dict[str, Any]]:
    """The rows of one case. With ``patience`` a contestant that takes more seconds ends the process.

    Raises:
        PoisonedError: whoever is named in ``mark`` left the device unusable.
    """
    chosen = [(name, one) for name, one in contestants(case, dry) if only in name]
    case, shrunk = fit.fitting(case, [one for _, one in chosen if not isinstance(one, str)], card.free_bytes())
    codecs = [codec for codec in CODECS if codec in {*case.codecs, "float16", "bfloat16", "int8"}]
    rates = roofs.measure(card, codecs, brief=True)
    running = Race(case, card, seed, mark, excluded or {}, patience)
    for name, contestant in chosen:
        running.prepare(name, contestant)
    running.time(rounds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    rates = roofs.best(rates, roofs.measure(card, codecs, brief=True))
    rows = list(running.rows.values())
    for row in rows:
        row |= {"case": case.name, "shape": asdict(case), "roofs": rates}
        row |= ({"shrunk": shrunk} if shrunk else {}) | ({"dry_run": DRY} if dry else {})
        if "median_ms" in row:
            least = floor(case.at(row["r_c"]), row["codec"], rates)
            row |= {"memory_ms": least.memory_ms, "arithmetic_ms": least.arithmetic_ms, "of_floor": least.ms / row["median_ms"]}
    return targets.judged(case, rows)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestants", default="", metavar="TEXT", help="those whose name contains it")
    parser.add_argument("--excluded", type=json.loads, default={})
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--folder", type=Path, required=True, help="where the rows and the mark go")
    options = parser.parse_args()
    os.environ.setdefault("LIK_SUPPRESS_NORM_WARN", "1")
    case = CASES[options.case].tiny() if options.dry_run else CASES[options.case]
    mark = options.folder / "mark"
    try:
        rows = race(
            case,
            card(options.dry_run),
            mark,
            seed=options.seed,
            rounds=options.rounds,
            only=options.contestants,
            excluded=options.excluded,
            patience=PATIENCE,
            dry=options.dry_run,
        )
    except PoisonedError as error:
        print(f"{mark.read_text()}: {error}", file=sys.stderr)
        os._exit(POISONED)  # tearing down a broken context can hang
    (options.folder / "rows.json").write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
