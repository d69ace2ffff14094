"""Nested order: ``python -m benchmarks nest``. What an order of a page's vectors takes, and what every budget of it finds
on the docstrings of Python's standard library. See README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.nest_peers import facility_numpy, pooled, pooled_by_dissimilarities, unit, ward_tree
from benchmarks.docstrings import docstring_vectors, ndcg, standard_error
from benchmarks.measures import Measures, publish, render
from benchmarks.roofs import Roofs
from metaindex import nest
from metaindex._native import core
from metaindex.bench.machine import run_record
from metaindex.nesting import ORDERS
from metaindex.timing import interleave

PACKAGES = ("metaindex", "numpy", "scipy")
TOKENS, DIM, KEPT = 1030, 128, 64  # a page of ColPali, and what is left of it
MILLISECONDS = 5.0
BUDGETS = (1, 2, 4, 8, 16, 32, 64)
_PAGES = 16


@dataclass(kw_only=True)
class Bench(Measures):
    seed: int
    rounds: int
    quick: bool


def pages(count: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors [count, 1030, 128] like those of pages: two in five belong to an empty background and nearly agree, the
    others to some thirty topics, which share directions with one another."""
    random = np.random.default_rng(seed)
    made = np.empty((count, TOKENS, DIM), np.float32)
    for page in made:
        topics = unit(random.standard_normal((30, DIM)) + random.standard_normal(DIM))
        topic = np.where(random.random(TOKENS) < 0.4, 0, random.integers(1, 30, TOKENS))
        spread = np.where(topic == 0, 0.1, random.uniform(0.3, 1.2, TOKENS))
        page[:] = unit(topics[topic] + spread[:, None] * random.standard_normal((TOKENS, DIM)) / np.sqrt(DIM))
    return made


def speed(bench: Bench) -> None:
    """Pages, and vectors without any structure, one at a time on one thread; then pages side by side on all cores."""
    few = 2 if bench.quick else _PAGES
    random = np.random.default_rng(bench.seed)
    kinds = {
        "pages": pages(few, bench.seed),
        "random": unit(random.standard_normal((few, TOKENS, DIM))).astype(np.float32),
    }
    roofs = Roofs({1})
    roofs.measure()
    rates = [rate for name, rate in roofs.rates["1"].items() if name.startswith("fp32")]
    least = 1e3 * TOKENS * (TOKENS + 1) / 2 * DIM / (max(rates) * 1e9)
    bench.row("pages", "all similarities once, by fused multiplications at the fastest rate of this core", "ms", [least])
    isas = [isa for isa in ("generic", "avx2", "avx512") if core.features()[isa][0]]
    for kind, made in kinds.items():
        contestants = {f"{order}, {isa}": _compiled(made, order, isa) for order in ORDERS for isa in isas}
        if kind == "pages":
            contestants |= {
                "facility, numpy": _plain(made, facility_numpy),
                "pools of Ward's clusters, scipy": _plain(made, pooled),
                "pools by dissimilarities, scipy, as in colpali-engine": _plain(made, pooled_by_dissimilarities),
            }
        for name, timing in interleave(contestants, rounds=bench.rounds).items():
            best = name.endswith(isas[-1]) and not bench.quick
            runs = [1e3 * seconds for seconds in timing.seconds]
            bench.row(kind, f"{name}, median of a page", "ms", runs, most=MILLISECONDS if best else 0)
    for order in ORDERS:
        timing = interleave({order: partial(nest, kinds["pages"], KEPT, order=order)}, rounds=bench.rounds)[order]
        bench.row("pages", f"{order}, {few} pages in one call on all cores", "pages/s", [few / each for each in timing.seconds])


def _compiled(made: NDArray[np.float32], order: str, isa: str) -> Callable[[], object]:
    """A call that puts one page into order, the next one each time."""
    upcoming = cycle(made)
    vectors, places = np.empty((KEPT, DIM), np.float32), np.empty(KEPT, np.int64)
    return lambda: core.nest(order, [next(upcoming)], [vectors], [places], isa=isa)


def _plain(made: NDArray[np.float32], cut: Callable[[NDArray[np.float32], int], object]) -> Callable[[], object]:
    upcoming = cycle(made)
    return lambda: cut(next(upcoming), KEPT)


def quality(bench: Bench) -> None:
    """nDCG@10 of summaries that ask for their docstring's body, in int8, at every budget of every order."""
    bodies, summaries = docstring_vectors(bench.quick)
    cut_to: dict[str, Callable[[int], list[NDArray[np.float32]]]] = {"reading order": lambda n: [body[:n] for body in bodies]}
    for order in ORDERS:
        whole = nest(bodies, max(BUDGETS), order=order, seed=bench.seed)
        cut_to[order] = lambda n, whole=whole: [body[:n] for body in whole]  # type: ignore[misc]
    trees = [ward_tree(body) for body in bodies]
    cut_to["pools of Ward's clusters, others for each budget"] = lambda n: [
        pooled(body, n, tree) for body, tree in zip(bodies, trees)
    ]
    for name, cut in cut_to.items():
        for n in BUDGETS:
            _ndcg(bench, f"{name}, {n}", cut(n), summaries)
    _ndcg(bench, "all tokens", bodies, summaries)


def _ndcg(bench: Bench, what: str, documents: list[NDArray[np.float32]], queries: list[NDArray[np.float32]]) -> None:
    found = ndcg(queries, documents, "int8")
    error = standard_error(found)
    bench.row("docstrings", f"{what}: nDCG@10", f"± {error:.3f}", [float(found.mean())], error=error, documents=len(documents))


CASES: dict[str, Callable[[Bench], None]] = {"pages": speed, "docstrings": quality}


def main(arguments: Sequence[str], results: Callable[[dict[str, Any]], Path], repository: Path) -> int:
    """Run the chosen cases; print a table and write it to the file that ``results`` names for a run's record."""
    options = _options(arguments)
    record = run_record(PACKAGES, repository=repository, seed=options.seed)
    bench = Bench(seed=options.seed, rounds=options.rounds, quick=options.quick)
    for case in options.cases:
        print(case, file=sys.stderr, flush=True)
        CASES[case](bench)
    rows = [row | {"quick": options.quick, "run": record} for row in bench.rows]
    text = render("Nested order", rows, f"pages of {TOKENS} vectors of {DIM}, cut to {KEPT}; docstrings in int8; ")
    publish(options.out or (None if options.quick else results(record)), rows, text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks nest", description="What nested orders take, and what budgets of them find."
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="less of everything; writes no results unless --out is given")
    parser.add_argument("--out", type=Path, help="JSON lines; by default benchmarks/results/<date>-<machine>-nest.jsonl")
    return parser.parse_args(arguments)
