"""A small run of every kernel entry of every GPU scorer, held to the reference: a first check, and what compute-sanitizer
watches."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.child import Rows, child
from benchmarks.gpu.ours import SCAN_PATHS, backends, scorer
from metaindex.codecs import CODECS
from metaindex.device.residency import Residency
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.reference import ReferenceScorer
from metaindex.scoring.request import ScoreRequest
from tests import builders
from tests.tolerances import score_tolerance


@dataclass(frozen=True)
class Shape:
    """``lengths`` of documents and ``query_lengths``, in ``segments``; ``budgets`` r_c besides all tokens."""

    name: str
    lengths: tuple[int, ...]
    query_lengths: tuple[int, ...]
    dim: int
    segments: int = 1
    budgets: tuple[int, ...] = ()


_RAGGED = tuple(1 + 5 * i % 9 for i in range(40))
SHAPES = (
    Shape("ragged", _RAGGED, (5, 0, 3), 33, segments=3, budgets=(1, 3, 4)),
    Shape("tok64, one query", (64,) * 70, (16,), 128, budgets=(1, 24, 32)),
    Shape("tok64, a batch", (64,) * 70, (16,) * 17, 128, segments=2, budgets=(8,)),
    Shape("long", (300, 130, 300, 17), (32,), 128, budgets=(256,)),
    Shape("wide", (64,) * 9, (16,), 3584, budgets=(1,)),
    Shape("wide, a batch", (8,) * 20, (1,) * 12, 3584),
)
_DRY = {"lengths": (3, 1, 4, 4, 2, 4), "query_lengths": (2, 3), "dim": 8, "segments": 2, "budgets": (1, 3)}


def requests(shape: Shape, codec: str) -> Iterator[tuple[str, ScoreRequest]]:
    """Scans and gathers, all scores and the k best, with and without a mask, at every budget."""
    rng = np.random.default_rng(7)
    count, batch = len(shape.lengths), len(shape.query_lengths)
    stored = builders.snapshot(
        builders.documents(rng, shape.lengths, shape.dim), codec, segments=shape.segments, sequence=rng.permutation(count)
    )
    asked = builders.queries(builders.documents(rng, shape.query_lengths, shape.dim), codec)
    candidates = np.stack([rng.permutation(count)[: max(1, count // 2)] for _ in range(batch)])
    candidates[:, -1] = -1
    allow = rng.random(count) < 0.7
    for r_c in (*shape.budgets, max(shape.lengths)):
        budget = (max(shape.query_lengths), r_c)
        for name, rest in {
            "maxsim_scan": {},
            "maxsim_scan, topk": {"k": 5},
            "maxsim_scan, topk, mask": {"k": count + 3, "allow": allow},
            "maxsim_gather": {"candidates": candidates},
            "maxsim_gather, topk": {"candidates": candidates, "k": 3},
            "maxsim_gather, shared, mask": {"candidates": candidates[:1], "allow": allow},
        }.items():
            yield f"{name}, r_c = {r_c}", builders.request(asked, stored, codec, budget, **rest)


def wrong(made: DeviceScorer, request: ScoreRequest) -> str | None:
    """What is wrong with the answer to a request, or ``None``."""
    scores, rows = _answer(made, request)
    expected, _ = _answer(ReferenceScorer(), request)
    tolerance = score_tolerance(expected[np.isfinite(expected)])
    if not np.allclose(scores, expected, **tolerance):
        return f"scores differ by {np.nanmax(np.abs(np.where(np.isfinite(expected), scores - expected, 0))):.2g}"
    if rows is None:
        return None
    everything, _ = _answer(ReferenceScorer(), replace(request, k=None, candidates=np.maximum(rows, 0)))
    there = rows >= 0
    if not np.allclose(everything[there], scores[there], **tolerance):
        return "rows are not those of the scores"
    if any(len(np.unique(one[one >= 0])) < (one >= 0).sum() for one in rows):
        return "a row was returned twice"
    return None


def _answer(made: Any, request: ScoreRequest) -> tuple[NDArray, NDArray | None]:
    scores = np.full(request.output_shape, np.nan, np.float32)
    rows = None if request.k is None else np.full(request.output_shape, -77, np.int64)
    made.score(request, scores, rows)
    return scores, rows


def run(options: argparse.Namespace) -> Rows:
    """A row for each backend: how many entries ran, which of them its scorer says no to, and which were wrong."""
    return [_backend(name, options.dry_run) for name in backends(options.dry_run)]


def _backend(name: str, dry: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"backend": name, "entries": 0, "refused": []}
    faults: list[str] = []
    try:
        made = scorer(name, Residency("cpu" if dry else "cuda:0"))
    except Exception as error:
        return row | {"failed": f"{type(error).__name__}: {error}"}
    for shape in SHAPES[:1] if dry else SHAPES:
        for codec in CODECS:
            print(f"{name}, {codec}, {shape.name}", file=sys.stderr, flush=True)
            for entry, request in requests(replace(shape, **_DRY) if dry else shape, codec):
                where = f"{codec}, {shape.name}, {entry}"
                if not (verdict := made.supports(request)).ok:
                    row["refused"].append(f"{where}: {verdict.why}")
                    continue
                row["entries"] += 1
                try:
                    if (fault := wrong(made, request)) is not None:
                        faults.append(f"{where}: {fault}")
                except Exception as error:
                    faults.append(f"{where}: {type(error).__name__}: {error}")
    if not row["entries"] and name not in SCAN_PATHS:  # which are those of some cards
        faults.append("its scorer says no to everything")
    return row | ({"failed": f"{len(faults)} of {row['entries']}: {'; '.join(faults[:5])}", "faults": faults} if faults else {})


if __name__ == "__main__":
    raise SystemExit(child(__doc__, run))
