"""The one program for a machine with a GPU: ``python -m benchmarks.gpu``. See README.md one folder up."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.gpu import DRY, outputs, runner, summary
from benchmarks.gpu.process import ROOT
from benchmarks.gpu.steps import STEPS
from metaindex.device.devices import gpus

RESULTS = ROOT / "benchmarks" / "results"
BUILD = ROOT / "build"


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    state = runner.State(options.state)
    if options.restore is not None:
        print(f"{outputs.restore(options.restore, state)} steps taken over from {options.restore}")
    steps = runner.chosen(STEPS, options.only)
    if options.list:
        for step in steps:
            record = state[step.name]
            print(f"{step.name:22} {record['status'] if record else 'waiting':8} about {step.expects:4} s  {step.about}")
        return summary.PASSED
    if not options.dry_run and gpus() == 0:
        print("no NVIDIA driver with a GPU is here; --dry-run shows on a CPU what would be done", file=sys.stderr)
        return 2
    for step in steps:
        record = state[step.name]
        if record and any(step in runner.chosen([step], [pattern]) or pattern == record["status"] for pattern in options.redo):
            state.forget(step.name)
    context = runner.Context(
        options.state,
        options.wheelhouse.resolve(),
        dry=options.dry_run,
        seed=options.seed,
        rounds=options.rounds,
        contestants=options.contestants,
        commit=options.commit,
    )

    def write(pictures: bool) -> list[Path]:
        waiting = sum(runner.waiting(state, step) for step in steps)
        return outputs.write(state.records(STEPS), waiting, options.out, dry=options.dry_run, pictures=pictures)

    # What is known so far lies in the results after every step: the run may be cut off at any time.
    runner.run(
        steps, context, seconds=options.seconds, say=lambda line: print(line, flush=True), after=lambda: write(pictures=False)
    )
    for path in write(pictures=True):
        print(f"wrote {path}")
    records, waiting = state.records(STEPS), sum(runner.waiting(state, step) for step in steps)
    print(summary.table(records, waiting))
    return summary.exit_code(records, waiting)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Build, test, watch and race metaindex on this machine's GPU, step by step; a second call goes on.",
        epilog="Exit code: 3 while steps wait; else 0 all steps passed and all targets were met, 1 not all.",
    )
    parser.add_argument("--list", action="store_true", help="show the steps and where they stand")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="steps whose name matches: 'race-me-*'")
    parser.add_argument("--redo", nargs="+", default=[], metavar="PATTERN", help="run them again; or: failed, skipped, passed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing that is expected to end later")
    parser.add_argument("--out", type=Path, help="where the results go; benchmarks/results by default")
    parser.add_argument("--state", type=Path, help="where steps are kept; build/gpu-bench by default")
    parser.add_argument("--restore", type=Path, metavar="FILE", help="JSON lines of an earlier run: go on from there")
    parser.add_argument("--wheelhouse", type=Path, default=ROOT / "wheelhouse", help="folder of other libraries' wheels")
    parser.add_argument("--contestants", default="", metavar="TEXT", help="race those whose name contains it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", default="", help="what is measured, where the checkout has no .git")
    parser.add_argument("--dry-run", action="store_true", help=f"{DRY}: tiny shapes on a CPU, plain Python for kernels")
    options = parser.parse_args(arguments)
    kind = "gpu-bench-dry-run" if options.dry_run else "gpu-bench"
    options.state = options.state or BUILD / kind
    options.out = options.out or (BUILD / kind if options.dry_run else RESULTS)
    if options.dry_run and RESULTS in (options.out.resolve(), *options.out.resolve().parents):
        parser.error(f"--out: {RESULTS} holds measurements, and this would be a {DRY}")
    return options


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the step under way is ended too
    raise SystemExit(main())
