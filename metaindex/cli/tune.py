"""``metaindex tune``: the cheapest plan for an index and its queries, as a table, JSON lines and a plot."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from metaindex.bench.machine import run_record
from metaindex.bench.plots import Run, plot_tradeoff, require_matplotlib
from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.index import MetaIndex
from metaindex.tuning import Tuning

_MISSED = 1
_LATENCY = {
    "latency": "median latency of single queries, ms (log scale)",
    "throughput": "median time per query in batches, ms (log scale)",
    "bytes": "document vectors read per query, MB (log scale)",
}


def add_parser(commands: Any) -> None:
    tune = commands.add_parser("tune", help="find the cheapest plan that finds what the exact search finds")
    tune.add_argument("index")
    tune.add_argument("--queries", required=True, metavar="FILE", help=f"at least 20 like those to come: {arguments.QUERIES}")
    tune.add_argument("-k", "--k", type=arguments.count, default=10, help="hits per query (10)")
    tune.add_argument("--recall", type=arguments.share, default=0.99, help="the least recall of the exact result (0.99)")
    tune.add_argument("--objective", choices=tuple(_LATENCY), default="latency", help="what is to be least (latency)")
    tune.add_argument("--batch", type=arguments.count, default=32, metavar="B", help="queries in a batch, for throughput (32)")
    tune.add_argument("--budget", type=arguments.budget, help="of the exact search: r_q,r_c or one number (everything)")
    tune.add_argument("--plans", nargs="*", type=arguments.plan, default=[], metavar="PLAN", help="more plans to measure")
    tune.add_argument(
        "--qrels",
        metavar="FILE",
        help="JSON lines, one for each query, of gains by document id; --recall is then a share of the exact search's nDCG",
    )
    tune.add_argument("--filter", type=arguments.json_object, metavar="JSON", help=arguments.FILTER)
    tune.add_argument("--seconds", type=arguments.count, default=300, help="about how long it may take (300)")
    tune.add_argument("--seed", type=arguments.from_zero, default=0, help="which queries train and which are held out")
    tune.add_argument("--threads", type=arguments.count, help="threads of a search; all cores by default")
    arguments.add_trusted(tune)
    tune.add_argument("--save", action="store_true", help="make the plan the default of this index's searches")
    tune.add_argument("--out", type=arguments.output_file, metavar="FILE", help="write the measured plans as JSON lines")
    tune.add_argument("--plot", type=arguments.output_file, metavar="FILE", help="draw recall against the objective as PNG")
    tune.add_argument("--json", action="store_true", help="print JSON lines instead of the table")
    tune.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.plot:
        require_matplotlib()
    mode = "r+" if options.save else "r"
    with MetaIndex.open(options.index, mode, trusted=options.trusted, num_threads=options.threads) as index:
        tuning = _tuned(options, index)
        documents = len(index)
        if options.save and tuning.reached:
            index.set_default(tuning)
    record = {"index": options.index, "objective": tuning.objective, "target": tuning.target, "batch": tuning.batch}
    record |= {"queries": list(tuning.queries), "run": run_record(seed=tuning.seed)}
    lines = [json_text({**row, **record}) for row in tuning.rows()]
    if options.out:
        Path(options.out).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if options.plot:
        _plot(tuning, documents, options.plot)
    print("\n".join(lines) if options.json else tuning)
    if options.save and not tuning.reached:
        print("metaindex: nothing was saved: no plan cheaper than the exact search reaches the target", file=sys.stderr)
        return _MISSED
    return 0


def _tuned(options: argparse.Namespace, index: MetaIndex) -> Tuning:
    done = 0
    with Progress(total=100, unit="%", description="tuning") as bar:

        def told(share: float, what: str) -> None:
            nonlocal done
            bar.update(int(100 * share) - done)
            done = int(100 * share)

        return index.tune(
            vectors.read_queries(options.queries),
            options.k,
            options.recall,
            options.objective,
            qrels=None if options.qrels is None else _qrels(options.qrels, index.schema.id_kind),
            budget=options.budget,
            plans=options.plans,
            filter=options.filter,
            batch=options.batch,
            seconds=options.seconds,
            seed=options.seed,
            progress=told,
        )


def _qrels(path: str, kind: str | None) -> list[dict[Any, float]]:
    """A dict of gains by document id for each line."""
    judged = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
        try:
            gains = json.loads(line)
            judged.append({arguments.document_id(id_, kind): float(gain) for id_, gain in gains.items()})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: expected an object of gains by document id: {error}") from None
    return judged


def _plot(tuning: Tuning, documents: int, path: str) -> None:
    cost = {run.plan: run.nbytes / 1e6 if tuning.objective == "bytes" else run.ms for run in tuning.runs}
    runs = [Run("exact" if run.exact else "plans", str(run.plan), cost[run.plan], run.quality) for run in tuning.runs]
    name = "recall" if tuning.metric == "recall" else tuning.metric
    quality = f"{name}@{tuning.k}{' of the exact result' if name == 'recall' else ''}, held-out queries"
    title = f"Plans for {documents:,} documents, target {tuning.target:.4g}"
    plot_tradeoff(runs, path, title=title, quality=quality, latency=_LATENCY[tuning.objective])
