"""The one entry point: ``python -m benchmarks``. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import nesting, plans, report, storage
from benchmarks.cases import CASES
from benchmarks.culprits import Death, without_culprits
from benchmarks.encoder import main as encoder
from benchmarks.engines import race as engines
from benchmarks.measures import publish
from benchmarks.roofs import Roofs, roof_row
from metaindex.bench.machine import run_record
from metaindex.codecs import CODECS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("metaindex", "numpy", "torch", "numkong", "maxsim-cpu", "faiss-cpu", "threadpoolctl")


def main() -> int:
    if sys.argv[1:2] == ["storage"]:
        return storage.main(sys.argv[2:], lambda record: _results(record, "-storage"), ROOT)
    if sys.argv[1:2] == ["plans"]:
        return plans.main(sys.argv[2:], lambda record: _results(record, "-plans"), ROOT)
    if sys.argv[1:2] == ["nest"]:
        return nesting.main(sys.argv[2:], lambda record: _results(record, "-nest"), ROOT)
    if sys.argv[1:2] == ["engines"]:
        return engines.main(sys.argv[2:], lambda record: _results(record, "-engines"), ROOT)
    if sys.argv[1:2] == ["encoder"]:
        return encoder.main(sys.argv[2:], lambda record: _results(record, "-encoder"), ROOT)
    options = _options()
    chosen = options.cases or list(CASES)
    roofs = Roofs({CASES[name].threads for name in chosen} | {1})
    roofs.measure()
    record = run_record(PACKAGES, repository=ROOT, seed=options.seed)
    rows: list[dict[str, Any]] = []
    for name in chosen:
        print(f"{name}: {CASES[name].about}", file=sys.stderr, flush=True)
        rows += run_case(name, options)
        # A neighbour slows roofs and contestants alike, so roofs are measured beside every case and the best counts.
        roofs.measure()
    for row in rows:
        finish(row, roofs, record, options)
    text = report.render(rows)
    publish(options.out or (None if options.quick else _results(record)), rows, text)
    return 1 if any(row.get("ours") and "failed" in row for row in rows) else 0


def run_case(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one case from a fresh process. A contestant that kills the process is left out and the case run again."""
    threads = str(CASES[name].threads)
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "LIBXSMM_NTHREADS")

    def attempt(excluded: dict[str, str]) -> list[dict[str, Any]] | Death:
        with tempfile.TemporaryDirectory(prefix="race-") as folder:
            command = [sys.executable, "-m", "benchmarks.race", name, "--folder", folder, "--seed", str(options.seed)]
            command += ["--rounds", str(options.rounds), "--only", options.only, "--excluded", json.dumps(excluded)]
            command += ["--quick"] if options.quick else []
            # Crash dumps of other libraries go to stdout and stderr alike; neither belongs into the table.
            done = subprocess.run(command, cwd=ROOT, env=os.environ | dict.fromkeys(pools, threads), stdout=sys.stderr)
            if done.returncode == 0:
                found: list[dict[str, Any]] = json.loads(Path(folder, "rows.json").read_text())
                return found
            if done.returncode > 0:
                return Death(f"failed with exit code {done.returncode}", "")
            mark = Path(folder, "mark")
            culprit = mark.read_text() if mark.exists() else ""
        print(f"{name}: {culprit or 'nobody'} killed the process", file=sys.stderr, flush=True)
        return Death(f"killed the process: {signal.Signals(-done.returncode).name}", culprit)

    rows = without_culprits(attempt)
    if isinstance(rows, Death):
        raise SystemExit(f"{name}: {rows.why} {rows.culprit}".rstrip())
    return rows


def finish(row: dict[str, Any], roofs: Roofs, record: dict[str, Any], options: argparse.Namespace) -> None:
    """Add the roofs and the run's record to a row."""
    case = CASES[row["case"]].quick() if options.quick else CASES[row["case"]]
    if "median_ms" in row:
        sizes = {name: codec.bytes_per_token(case.dim) for name, codec in CODECS.items()}
        row |= roof_row(case, row["codec"], sizes, roofs.rates)
    row |= {"quick": options.quick, "rounds": options.rounds, "roofs": roofs.rates, "run": record}


def slug(machine: dict[str, Any]) -> str:
    model = re.sub(r"\([^)]*\)", "", machine["cpu"]).lower()
    return "-".join([*re.findall(r"[a-z0-9]+", model), f"{machine['cores']}cores"])


def _results(record: dict[str, Any], kind: str = "") -> Path:
    return RESULTS / f"{record['date'][:10]}-{slug(record['machine'])}{kind}.jsonl"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Race metaindex against other libraries on this machine.",
        epilog="python -m benchmarks storage, plans, nest, engines and encoder do other things; see their --help.",
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="all by default")
    parser.add_argument("--only", default="", metavar="TEXT", help="contestants whose name contains it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer documents; writes no results unless --out is given")
    parser.add_argument("--out", type=Path, help="JSON lines; by default benchmarks/results/<date>-<machine>.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
