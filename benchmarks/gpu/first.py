"""The first calls of one GPU scorer in a fresh process, with an empty Triton cache, and whether later shapes compile anew.

A class of shapes (operation, codec, tokens, dimensions) may compile once; another number of documents, queries or results may
not. Compilations are counted as new compiled kernels in Triton's cache folder.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import problem
from benchmarks.gpu.card import card
from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.child import Rows, child
from benchmarks.gpu.ours import BACKENDS, PLAIN, Ours

SECONDS = {"triton": 2.0, "cuda": 1.0, PLAIN: 2.0}
"""The most that a first call may take."""

_CLASSES = tuple(
    GpuCase(f"{about}, {codec}", about, 1_024, 64, dim, queries=queries, candidates=candidates, codecs=(codec,))
    for about, dim, queries, candidates in (
        ("scan, one query, d = 128", 128, 1, None),
        ("scan, 64 queries, d = 128", 128, 64, None),
        ("gather, d = 128", 128, 1, 1_000),
        ("scan, one query, d = 3584", 3584, 1, None),
    )
    for codec in ("float16", "int8")
)
_OTHER = {"documents": 1_501, "queries": 3}


def run(options: argparse.Namespace) -> Rows:
    backend = PLAIN if options.dry_run else options.backend
    used = card(options.dry_run)
    try:
        return [_row(backend, shape.tiny() if options.dry_run else shape, used) for shape in _CLASSES]
    except Exception as error:
        return [{"backend": backend, "failed": f"{type(error).__name__}: {error}"}]


def _row(backend: str, case: GpuCase, used: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"backend": backend, "contestant": f"metaindex {backend}", "case": case.name, "codec": case.codecs[0]}
    row["first_s"] = _seconds(backend, case, case.k, used)
    compiled = _compiled()
    others = {name: min(number, 50) if backend == PLAIN else number for name, number in _OTHER.items()}
    if case.queries == 1:  # one query is a class of its own, which a batch may compile for
        others["queries"] = 1
    later = {
        "N": replace(case, documents=others["documents"]),
        "B": replace(case, queries=others["queries"]),
    }
    row |= {f"other_{letter}_s": _seconds(backend, shape, case.k, used) for letter, shape in later.items()}
    row["other_k_s"] = _seconds(backend, case, case.k // 2 + 1, used)
    row["compiled_again"] = _compiled() - compiled
    limit = SECONDS[backend]
    row["targets"] = [
        {"target": text, "value": value, "bound": bound, "met": value <= bound, "every": True}
        for text, value, bound in (
            (f"first call within {limit:g} s", row["first_s"], limit),
            ("nothing compiled for another N, B or k", row["compiled_again"], 0),
        )
    ]
    row["met"] = all(target["met"] for target in row["targets"])
    return row


def _seconds(backend: str, case: GpuCase, k: int, used: Any) -> float:
    """From a prepared entry to the answer of its first call."""
    entry = Ours(backend, case.codecs[0]).prepare(problem.make(case, 0, used.device), case.doc_tokens)
    used.wait()
    start = time.perf_counter()
    entry.best(k)
    used.wait()
    return time.perf_counter() - start


def _compiled() -> int:
    folder = os.environ.get("TRITON_CACHE_DIR")
    return sum(1 for _ in Path(folder).rglob("*.cubin")) if folder else 0


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    raise SystemExit(child(__doc__, run, ("backend", {"choices": tuple(BACKENDS)})))
