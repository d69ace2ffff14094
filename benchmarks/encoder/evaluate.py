"""What encoders find at every budget: nDCG@10 of the standard library's summaries that ask for the body of their docstring.

Beside them stands what the backbone finds by itself: with its own single vector for a text, and with its token vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.docstrings import K, ndcg, standard_error
from benchmarks.measures import Measures
from metaindex import nest
from metaindex.bench.docstrings import Entry, collect
from metaindex.encoders import MetaEmbed
from metaindex.encoders.minilm import MiniLM
from metaindex.training import GROUPS
from metaindex.types import Budget

BUDGETS = tuple(Budget(*group) for group in GROUPS)
MARGIN = 0.05  # what all vectors are to find beyond the backbone's single one
NOISE = 2.0  # standard errors of a difference that chance alone makes now and then


@dataclass(kw_only=True)
class Bench(Measures):
    quick: bool


def measure(bench: Bench, models: Sequence[Path]) -> None:
    """Rows for the backbone, then for each budget over ``models``, which differ in their seed."""
    entries = collect()[: 120 if bench.quick else None]
    single = _backbone(bench, entries)
    found = [_found(path, entries) for path in models]
    by_budget = {str(group): np.stack([each[place] for each in found]) for place, group in enumerate(BUDGETS)}
    before: NDArray[np.float64] | None = None
    for budget, values in by_budget.items():
        least = {str(BUDGETS[0]): float(single.mean()), str(BUDGETS[-1]): float(single.mean()) + MARGIN}.get(budget, 0)
        _row(bench, "budgets", f"{budget}, {len(models)} seeds", values, least=least)
        if before is not None:
            gain = values.mean(axis=0) - before
            error, what = standard_error(gain), f"{budget} over the budget before"
            bench.row("gains", what, f"± {error:.4f}", [float(gain.mean())], least=-NOISE * error, error=error)
        before = values.mean(axis=0)


def _backbone(bench: Bench, entries: Sequence[Entry]) -> NDArray[np.float64]:
    model = MiniLM()
    bodies, summaries = [entry.body for entry in entries], [entry.summary for entry in entries]
    asked, searched = model.sentence_embeddings(summaries), model.sentence_embeddings(bodies)
    single = ndcg(asked[:, None], searched[:, None], "float32")[None]
    _row(bench, "backbone", "its single vector", single)
    documents, queries = model.encode_document(bodies), model.encode_query(summaries)
    for order in ("clusters", "facility"):
        nested = nest(documents, BUDGETS[-1][1], order=order)
        _row(
            bench,
            "backbone",
            f"its token vectors, {BUDGETS[-1][1]} of a document by {order}",
            ndcg(queries, nested, "float32")[None],
        )
    return single[0]


def _found(path: Path, entries: Sequence[Entry]) -> list[NDArray[np.float64]]:
    from benchmarks.encoder.recipe import BACKBONE

    model = MetaEmbed.load(path, backbone=BACKBONE)
    queries = model.encode_query([entry.summary for entry in entries], progress=True)
    documents = model.encode_document([entry.body for entry in entries], progress=True)
    return [ndcg(queries, documents, "float32", group) for group in BUDGETS]


def _row(bench: Bench, case: str, what: str, values: NDArray[np.float64], least: float = 0) -> None:
    """``values``: of each seed and query. The mean over seeds counts."""
    seeds = values.mean(axis=1)
    error, spread = standard_error(values.mean(axis=0)), float(np.ptp(seeds))
    unit = f"± {error:.3f}" + (f", {spread:.3f} from seed to seed" if len(seeds) > 1 else "")
    more = {"error": error, "spread": spread, "seeds": seeds.tolist()}
    bench.row(case, f"{what}: nDCG@{K}", unit, [float(seeds.mean())], least=least, **more)
