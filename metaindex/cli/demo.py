"""``metaindex demo``: the main job on real text, from encoding to a plot of what each budget costs and buys."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from metaindex.bench.docstrings import Entry, collect
from metaindex.bench.machine import run_record
from metaindex.bench.plots import Run, plot_tradeoff, require_matplotlib
from metaindex.checks import usable_cores
from metaindex.cli import arguments
from metaindex.cli.demo_sweep import CUT, DOC_TOKENS, Corpus, Row, build, sweep
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.codecs import CODECS
from metaindex.encoders.minilm import MiniLM, TextVectors
from metaindex.index import MetaIndex
from metaindex.nesting import ORDERS, nest
from metaindex.planning.size import human

QUESTIONS = (
    "wrap a long paragraph so that no line is too wide",
    "find the most similar strings in a list",
    "copy a folder with everything in it",
)
SEED = 0

_HITS = 3
_NOTES = """\
budget     (*,4) compares all query tokens with the first 4 vectors of each document;
           > keeps the best so many documents for the next stage; mean vectors: one vector for each text on both sides
ms         median of single queries, searching only (the model takes some ms more to encode a question)
read       bytes of document vectors that one query reads
nDCG@10    1 when every summary finds its own docstring first; one standard error of it is up to {error:.3f} here
recall@10  share of the 10 best by all tokens in float32 that was found (a tie counts as found)

The query is kept whole on purpose: this model was not trained to put the meaning into a text's first tokens, and {cut} shows
what cutting them costs. Documents can be cut because metaindex.nest put their tokens into an order whose every prefix covers
the document. A model that was trained with Meta Tokens can be cut on both sides."""


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time of the demo's steps."""

    encode: float
    nest: float
    sweep: float


def add_parser(commands: Any) -> None:
    demo = commands.add_parser("demo", help="search the docstrings of this Python; show what each budget costs and buys")
    demo.add_argument("--questions", nargs="+", metavar="TEXT", default=list(QUESTIONS), help="what to ask, each in quotes")
    demo.add_argument("--documents", type=arguments.count, metavar="N", help="use N of the docstrings; all by default")
    demo.add_argument("--queries", type=arguments.count, default=500, metavar="N", help="summaries to measure with (500)")
    demo.add_argument("--codec", choices=list(CODECS), default="int8", help="how vectors are kept in the sweep (int8)")
    demo.add_argument(
        "--order", choices=ORDERS, default="facility", help="how a document's vectors are put in order (facility)"
    )
    demo.add_argument(
        "--plot",
        type=arguments.output_file,
        default="metaindex-demo.png",
        metavar="FILE",
        help="where the plot goes (metaindex-demo.png)",
    )
    demo.add_argument("--json", action="store_true", help="print JSON")
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    # Read by the libraries below the model when they are imported; the model is on disk, so they have nothing to ask for.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model = MiniLM()
    require_matplotlib()
    entries = _sample(collect(), options.documents)
    say = _silent if options.json else print
    say(f"{len(entries):,} docstrings of Python {sys.version.split()[0]}: bodies are the documents, summaries the queries")
    corpus, asked, seconds = _encode(model, entries, options.queries, options.questions, options.order)
    say(f"encoded in {seconds.encode:.1f} s, put into order by metaindex.nest ({options.order}) in {seconds.nest:.2f} s")
    with build(corpus.documents, options.codec) as index:
        say(f"{index}\n")
        answers = _ask(index, entries, options.questions, asked)
    say(_answers_text(answers))
    start = time.perf_counter()
    rows = sweep(corpus, options.codec)
    seconds = Seconds(seconds.encode, seconds.nest, time.perf_counter() - start)
    _plot(rows, len(entries), options.plot)
    if options.json:
        report = {"documents": len(entries), "queries": len(corpus.queries), "order": options.order}
        report |= {"seconds": asdict(seconds), "seed": SEED, "questions": answers}
        report |= {"rows": [asdict(row) for row in rows], "plot": options.plot, "machine": run_record()}
        print(json_text(report, indent=2))
    else:
        print(_table(rows))
        print(f"\nplot: {options.plot}")
    return 0


def _encode(
    model: MiniLM, entries: Sequence[Entry], queries: int, questions: Sequence[str], order: str
) -> tuple[Corpus, TextVectors, Seconds]:
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(entries))[:queries])
    start = time.perf_counter()
    with Progress(len(entries), "docstrings", "encoding documents") as bar:
        documents = model.document_vectors([entry.body for entry in entries], bar.update)
    with Progress(len(chosen), "summaries", "encoding queries") as bar:
        summaries = model.query_vectors([entries[place].summary for place in chosen], bar.update)
    asked = model.query_vectors(questions)
    encoded = time.perf_counter()
    nested = nest(documents.tokens, DOC_TOKENS, order=order)
    corpus = Corpus(nested, documents.single, summaries.tokens, summaries.single, chosen.astype(np.int64))
    return corpus, asked, Seconds(encoded - start, time.perf_counter() - encoded, 0.0)


def _ask(index: MetaIndex, entries: Sequence[Entry], questions: Sequence[str], asked: TextVectors) -> list[dict[str, Any]]:
    answers = []
    for question, hits in zip(questions, index.search(asked.tokens, _HITS).to_list()):
        found = [(hit["score"], entries[hit["id"]]) for hit in hits]
        answers.append(
            {
                "question": question,
                "hits": [{"score": score, "id": entry.id, "summary": entry.summary} for score, entry in found],
            }
        )
    return answers


def _answers_text(answers: Sequence[dict[str, Any]]) -> str:
    lines = []
    for answer in answers:
        lines.append(f"? {answer['question']}")
        lines += [f"  {hit['score']:6.2f}  {hit['id']}: {_shortened(hit['summary'])}" for hit in answer["hits"]]
        lines.append("")
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    width = max(len(row.search) for row in rows)
    lines = [f"{'budget':<{width}}  {'codec':<8} {'ms':>8} {'read':>9} {'nDCG@10':>8} {'recall@10':>10}"]
    lines += [
        f"{row.search:<{width}}  {row.codec:<8} {row.milliseconds:>8.2f} {human(row.bytes):>9} "
        f"{row.ndcg:>8.3f} {row.recall:>10.3f}"
        for row in rows
    ]
    return "\n".join([*lines, "", _NOTES.format(error=_error(rows), cut=CUT)])


def _plot(rows: Sequence[Row], documents: int, path: str) -> None:
    # The cut query scores so low that it would press all else into a line; the table tells of it.
    shown = [row for row in rows if row.search != CUT]
    plot_tradeoff(
        [Run(row.series, _plot_label(row), row.milliseconds, row.ndcg) for row in shown],
        path,
        title=f"What a budget costs and buys: {documents:,} docstrings, {usable_cores()} cores",
        quality=f"nDCG@10 (standard error up to {_error(shown):.3f})",
    )


def _error(rows: Sequence[Row]) -> float:
    return max(row.ndcg_error for row in rows)


def _plot_label(row: Row) -> str:
    if row.series == "cascade":
        return "cascade"
    return f"{row.search} {row.codec}" if "codec" in row.series else row.search


def _sample(entries: list[Entry], count: int | None) -> list[Entry]:
    if count is None or count >= len(entries):
        return entries
    return [entries[place] for place in np.sort(np.random.default_rng(SEED).permutation(len(entries))[:count])]


def _shortened(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def _silent(*_: Any) -> None:
    pass
