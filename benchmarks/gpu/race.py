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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu import DRY, fit, roofs, targets
from benchmarks.gpu.card import AnyCard, card
from benchmarks.gpu.cases import CASES, GpuCase
from benchmarks.gpu.contestant import GpuContestant
from benchmarks.gpu.floors import floor
from benchmarks.gpu.process import POISONED
from benchmarks.gpu.turns import PoisonedError, Turns, line
from metaindex.codecs import CODECS

# In the order of preparation: those that may bring the process down come first, so that little is prepared twice.
PEERS = (
    "benchmarks.gpu.peers.late_interaction",
    "benchmarks.gpu.peers.flash",
    "benchmarks.gpu.peers.torch_chunks",
    "benchmarks.gpu.peers.sentence_transformers_maxsim",
)
PATIENCE = 240  # seconds for one contestant's turn; then the process ends with SIGALRM, and the case runs without it


def contestants(case: GpuCase, dry: bool) -> Iterator[tuple[str, GpuContestant | str]]:
    """Every contestant by name, or why its module can't be imported."""
    for module in PEERS if case.peers else ():
        try:
            for peer in importlib.import_module(module).PEERS:
                yield peer.name, peer
        except Exception as error:
            yield module.rpartition(".")[2], line(error)
    from benchmarks.gpu.ours import ours

    for one in ours(case, dry):
        yield one.name, one


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
    running = Turns(case, card, seed, mark, excluded or {}, patience)
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
