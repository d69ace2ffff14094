"""``metaindex bench sweep``: what each budget, codec and plan costs here, and how much of the exact result it finds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metaindex.bench import sweep as sweeps
from metaindex.bench.machine import run_record
from metaindex.bench.plots import Run, plot_tradeoff, require_matplotlib
from metaindex.bench.synthetic import NestedVectors
from metaindex.cli import arguments, vectors
from metaindex.cli.output import json_text
from metaindex.index import MetaIndex

_BUDGETS = "1,1 2,4 4,8 8,16 16,64"
_CANDIDATES = (100, 1000, 4000)
_TRAINING = 400  # queries
_NOTES = """\
ms       median of single queries, packing and encoding apart; contestants take turns
MB read  document vectors that one query reads
recall   share of the {k} best at the full budget {truth} that was found (a tie counts as found)
error    the largest error of a returned score, relative, against float64 on those vectors at the same budget"""


_AGAINST: dict[str, tuple[Callable[[sweeps.Row], float], str]] = {
    "latency": (lambda row: 1e3 * row.timing.median, "median latency per query, ms (log scale)"),
    "bytes": (lambda row: row.answer.bytes / 1e6, "document vectors read per query, MB (log scale)"),
}


def add_parser(commands: Any) -> None:
    bench = commands.add_parser("bench", help="measure this machine")
    what = bench.add_subparsers(title="what", metavar="WHAT", required=True)
    sweep = what.add_parser("sweep", help="latency against budget, codec and plan: a table, JSON lines and a plot")
    data = sweep.add_argument_group("synthetic vectors")
    data.add_argument("--n", type=arguments.count, default=20_000, metavar="N", help="documents (20000)")
    data.add_argument("--doc-tokens", type=arguments.count, default=64, metavar="T", help="tokens per document (64)")
    data.add_argument("--query-tokens", type=arguments.count, default=16, metavar="R", help="tokens per query (16)")
    data.add_argument("--dim", type=arguments.count, default=128, metavar="d", help="dimensions (128)")
    data.add_argument("--codecs", type=arguments.codecs, default="int8,float16", help="separated by commas (int8,float16)")
    data.add_argument("--queries", type=arguments.count, default=50, metavar="B", help="how many queries (50)")
    data.add_argument("--seed", type=arguments.from_zero, default=0)
    data.add_argument(
        "--difficulty", type=arguments.fraction, default=0.45, help="from 0 to 1: how much first tokens leave out (0.45)"
    )
    data.add_argument(
        "--coarse", metavar="KIND", help='a FAISS index such as "IVF512,Flat", whose candidates are ranked with all tokens'
    )
    data.add_argument(
        "--tune",
        type=arguments.count,
        metavar="SECONDS",
        help="take so long to find plans, with queries of their own, and add them",
    )
    data.add_argument("--recall", type=arguments.share, default=0.99, help="that those plans are to reach (0.99)")
    stored = sweep.add_argument_group("or stored vectors")
    stored.add_argument("--index", metavar="PATH", help="an index instead of synthetic vectors")
    stored.add_argument("--query-vectors", metavar="FILE", help="its queries: .npy, .npz or .safetensors with [B, R, d]")
    arguments.add_trusted(stored)
    sweep.add_argument(
        "--budgets", type=arguments.budgets, help=f'pairs r_q,r_c separated by spaces ("{_BUDGETS}", cut to R and T)'
    )
    sweep.add_argument(
        "--plans", nargs="*", type=arguments.plan, metavar="PLAN", help='each in quotes ("(1,1)>1000 (4,8)>200 (*,*)")'
    )
    sweep.add_argument("-k", "--k", type=arguments.count, default=10, help="hits per query (10)")
    sweep.add_argument("--threads", type=arguments.count, help="threads of a search; all cores by default")
    sweep.add_argument("--rounds", type=arguments.count, default=5, help="how many turns each search takes (5)")
    sweep.add_argument("--out", type=arguments.output_file, metavar="FILE", help="write the rows as JSON lines")
    sweep.add_argument("--plot", type=arguments.output_file, metavar="FILE", help="draw recall against latency as PNG")
    sweep.add_argument(
        "--against",
        choices=tuple(_AGAINST),
        default="latency",
        help="what is drawn against it, and least in tuned plans (latency)",
    )
    sweep.add_argument("--json", action="store_true", help="print JSON lines instead of the table")
    sweep.set_defaults(run=run, refuse=sweep.error)


def run(options: argparse.Namespace) -> int:
    if (options.index is None) != (options.query_vectors is None):
        options.refuse("--index and --query-vectors: expected both, an index and a file of queries for it, or neither")
    if options.index is not None and (options.coarse or options.tune):
        options.refuse("--coarse, --tune: an index has its own coarse stage, and metaindex tune finds plans that --plans takes")
    if options.budgets == options.plans == []:
        options.refuse("--budgets, --plans: expected at least one to measure, got none")
    if options.plot:
        require_matplotlib()
    subject = _subject(options)
    kinds = _searches(options, subject)
    rows = sweeps.sweep(subject, list(kinds), options.k, options.rounds)
    record = run_record(seed=None if options.index else options.seed)
    about = {"subject": subject.description, "run": record}
    lines = [json_text({**row.as_json(), "kind": kinds[row.answer.search], **about}) for row in rows]
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    if options.plot:
        _plot(options, subject, rows, kinds)
    if options.json:
        print("\n".join(lines))
    else:
        truth = "as stored" if options.index else "in float32"
        print(f"{sweeps.table(rows)}\n\n{_NOTES.format(k=options.k, truth=truth)}")
    return 0


def _plot(options: argparse.Namespace, subject: sweeps.Subject, rows: Sequence[sweeps.Row], kinds: Mapping[str, str]) -> None:
    cost, axis = _AGAINST[options.against]
    runs = [
        Run(f"{row.answer.codec}, {kinds[row.answer.search]}", row.answer.search, cost(row), row.answer.recall) for row in rows
    ]
    title = f"What a search costs and finds: {subject.description['documents']:,} documents, d = {subject.description['dim']}"
    plot_tradeoff(runs, options.plot, title=title, quality=f"recall@{options.k} of the exact result", latency=axis)


def _subject(options: argparse.Namespace) -> sweeps.Subject:
    if options.index is None:
        made = NestedVectors(options.n, options.doc_tokens, options.dim, options.seed, options.difficulty)
        training = _TRAINING if options.tune else 0
        return sweeps.synthetic(
            made,
            options.queries,
            options.query_tokens,
            options.codecs,
            options.threads,
            coarse=options.coarse,
            training=training,
        )
    queries = vectors.read_queries(options.query_vectors)
    if not len(queries):
        raise ValueError(f"{options.query_vectors}: expected at least one query, got none")
    return sweeps.stored(
        MetaIndex.open(options.index, trusted=options.trusted, num_threads=options.threads), queries, options.index
    )


def _searches(options: argparse.Namespace, subject: sweeps.Subject) -> dict[str, str]:
    """Budgets and plans as texts that ``Plan.parse`` reads, and of which kind each is. Those that nobody asked for are cut to
    R and T."""
    everything = subject.exact.plan(query_tokens=subject.description["query_tokens"]).stages[-1].step.budget
    budgets = options.budgets
    if budgets is None:
        budgets = [(min(r_q, everything.r_q), min(r_c, everything.r_c)) for r_q, r_c in arguments.budgets(_BUDGETS)]
    plans = options.plans
    if plans is None:
        middle = f"({min(4, everything.r_q)},{min(8, everything.r_c)})"
        plans = [f"(1,1)>{max(1000, options.k)} {middle}>{max(200, options.k)} (*,*)"]
    kinds = {f"({r_q},{r_c})": "budgets" for r_q, r_c in budgets} | {str(plan): "plans" for plan in plans}
    if subject.exact.schema.coarse is not None:
        kinds |= {f"coarse>{max(options.k, count)} (*,*)": "coarse, then all tokens" for count in _CANDIDATES}
    if options.tune:
        found = sweeps.tuned(subject, options.k, options.recall, options.against, options.tune, options.seed)
        kinds |= dict.fromkeys(found, "tuned plans")
    return kinds
