"""One case in one process: prepare every contestant, check its answer, then time all of them in turns."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import problem as problems
from benchmarks.cases import CASES, Case
from benchmarks.contestant import Contestant, Search
from metaindex.timing import interleave

# In the order of preparation: one that is known to crash comes first, so that little is prepared twice.
MODULES = (
    "benchmarks.baselines.maxsim_cpu_scores",
    "benchmarks.ours",
    "benchmarks.baselines.torch_chunks",
    "benchmarks.baselines.numkong_maxsim",
    "benchmarks.baselines.numpy_chunks",
    "benchmarks.baselines.faiss_flat",
)

# Beyond these an answer is wrong and its speed is not printed. Ours are held to the values their codec keeps; another library
# may round on its way, so it is held to the original vectors only, and to finding at least half of the best.
OURS_DECODED, OURS_RECALL = 1e-4, 0.9
PEERS_ORIGINAL, PEERS_RECALL = 0.05, 0.5

# A case with slow contestants gets fewer rounds, never below three, so that the whole run stays a matter of minutes.
LIMIT_SECONDS = 45


def contestants() -> Iterator[tuple[str, Contestant | str]]:
    """Every contestant by name, or why its module can't be imported."""
    for module in MODULES:
        try:
            for peer in importlib.import_module(module).PEERS:
                yield peer.name, peer
        except Exception as error:
            yield module, f"{type(error).__name__}: {error}"


def race(case: Case, seed: int, rounds: int, only: str, excluded: dict[str, str], mark: Path) -> list[dict[str, Any]]:
    """The rows of one case. ``mark`` always holds the name of the contestant at work, so that a crash has a culprit."""
    problem = problems.make(case, seed)
    kth_best = problems.truth(problem)
    rows: dict[str, dict[str, Any]] = {}
    searches: dict[str, Search] = {}
    for name, contestant in contestants():
        if only not in name:
            continue
        if isinstance(contestant, str):
            rows[name] = {"contestant": name, "failed": contestant}
            continue
        if not contestant.serves(case):
            continue
        row = rows[name] = {key: getattr(contestant, key) for key in ("package", "codec", "ours", "how")}
        row["contestant"] = name
        if name in excluded:
            row["failed"] = excluded[name]
            continue
        mark.write_text(name)
        try:
            search = contestant.prepare(problem)
            found = problems.errors(problem, search(), kth_best, contestant.codec if contestant.our_encoding else None)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        row |= {"error_original": found.original, "error_decoded": found.decoded, "recall": found.recall}
        wrong = verdict(contestant.ours, found)
        if wrong is None:
            searches[name] = search
        else:
            row["failed"] = wrong

    def at_work(name: str) -> None:
        mark.write_text(name)

    timings = interleave(searches, rounds=rounds, before_turn=at_work, limit_seconds=LIMIT_SECONDS)
    for name, timing in timings.items():
        rows[name] |= timing.row()
    return list(rows.values())


def verdict(ours: bool, found: problems.Errors) -> str | None:
    """Why an answer is wrong, or ``None``."""
    if ours and (found.decoded is None or found.decoded > OURS_DECODED or found.recall < OURS_RECALL):
        return f"wrong: error on decoded values {found.decoded}, recall {found.recall:.3f}"
    if not ours and (found.original > PEERS_ORIGINAL or found.recall < PEERS_RECALL):
        return f"wrong: error {found.original:.2g}, recall {found.recall:.3f}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--excluded", type=json.loads, default={})
    parser.add_argument("--folder", type=Path, required=True, help="where the rows and the mark go")
    options = parser.parse_args()
    case = CASES[options.case].quick() if options.quick else CASES[options.case]
    rows = race(case, options.seed, options.rounds, options.only, options.excluded, options.folder / "mark")
    shape = asdict(case)
    (options.folder / "rows.json").write_text(json.dumps([{"case": case.name, "shape": shape, **row} for row in rows]))


if __name__ == "__main__":
    main()
