"""``metaindex demo``: the main job on real text, from encoding to a plot of what each budget costs and buys."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.bench.docstrings import Entry, collect
from metaindex.bench.machine import run_record
from metaindex.bench.plots import Run, plot_tradeoff, require_matplotlib
from metaindex.checks import usable_cores
from metaindex.cli import arguments
from metaindex.cli.demo_sweep import BUDGETS, Corpus, Row, build, sweep
from metaindex.cli.output import json_text
from metaindex.cli.progress import Progress
from metaindex.codecs import CODECS
from metaindex.encoders import Encoder, docstring_encoder
from metaindex.encoders.minilm import MiniLM
from metaindex.index import MetaIndex
from metaindex.planning.size import human

QUESTIONS = (
    "wrap a long paragraph so that no line is too wide",
    "find the most similar strings in a list",
    "copy a folder with everything in it",
)
SEED = 0

_HITS = 3
_BATCH = 128  # texts between two steps of a progress bar
_NOTES = """\
budget      (4,8) compares the first 4 vectors of the query with the first 8 of each document; > keeps the best so many
            documents for the next stage
one vector  the sentence embedding of all-MiniLM-L6-v2, the model that the encoder is built on
ms          median of single queries, searching only (the encoder takes some ms more to encode a question)
read        bytes of document vectors that one query reads
nDCG@10     1 when every summary finds its own docstring first; one standard error of it is up to {error:.3f} here
recall@10   share of the 10 best by {full} in float32 that was found (a tie counts as found)

The encoder comes with metaindex (metaindex.encoders.docstring_encoder). It was trained so that the first vectors of a query and
of a document are an embedding of their own, on docstrings of other packages: those of Python 3.11 were kept from it."""


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time of the demo's steps."""

    encode: float
    sweep: float


def add_parser(commands: Any) -> None:
    demo = commands.add_parser("demo", help="search the docstrings of this Python; show what each budget costs and buys")
    demo.add_argument("--questions", nargs="+", metavar="TEXT", default=list(QUESTIONS), help="what to ask, each in quotes")
    demo.add_argument("--documents", type=arguments.count, metavar="N", help="use N of the docstrings; all by default")
    demo.add_argument("--queries", type=arguments.count, default=2000, metavar="N", help="summaries to measure with (2000)")
    demo.add_argument("--codec", choices=list(CODECS), default="int8", help="how vectors are kept in the sweep (int8)")
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
    # Read by the libraries below the models when they are imported; the models are on disk, so they have nothing to ask for.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    require_matplotlib()
    encoder, baseline = docstring_encoder(), MiniLM()
    entries = _sample(collect(), options.documents)
    say = _silent if options.json else print
    say(f"{len(entries):,} docstrings of Python {sys.version.split()[0]}: bodies are the documents, summaries the queries")
    start = time.perf_counter()
    corpus = _encode(encoder, baseline, entries, options.queries)
    encoded = time.perf_counter() - start
    say(f"encoded in {encoded:.1f} s")
    with build(corpus.documents, options.codec) as index:
        say(f"{index}\n")
        answers = _ask(index, entries, options.questions, encoder.encode_query(options.questions))
    say(_answers_text(answers))
    start = time.perf_counter()
    rows = sweep(corpus, options.codec)
    seconds = Seconds(encoded, time.perf_counter() - start)
    _plot(rows, len(entries), options.plot)
    if options.json:
        report = {"documents": len(entries), "queries": len(corpus.queries), "seconds": asdict(seconds), "seed": SEED}
        report |= {"questions": answers, "rows": [asdict(row) for row in rows], "plot": options.plot}
        print(json_text(report | {"machine": run_record()}, indent=2))
    else:
        print(_table(rows))
        print(f"\nplot: {options.plot}")
    return 0


def _encode(encoder: Encoder, baseline: MiniLM, entries: Sequence[Entry], queries: int) -> Corpus:
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(entries))[:queries]).astype(np.int64)
    bodies, summaries = [entry.body for entry in entries], [entries[place].summary for place in chosen]
    return Corpus(
        _vectors(encoder.encode_document, bodies, "encoding documents"),
        _vectors(baseline.sentence_embeddings, bodies, "in one vector each"),
        _vectors(encoder.encode_query, summaries, "encoding queries"),
        _vectors(baseline.sentence_embeddings, summaries, "in one vector each"),
        chosen,
    )


def _vectors(encode: Callable[[list[str]], Any], texts: list[str], description: str) -> NDArray[np.float32]:
    found = []
    with Progress(len(texts), "texts", description) as bar:
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            found.append(encode(batch))
            bar.update(len(batch))
    return np.concatenate(found)


def _ask(index: MetaIndex, entries: Sequence[Entry], questions: Sequence[str], asked: Any) -> list[dict[str, Any]]:
    answers = []
    for question, hits in zip(questions, index.search(asked, _HITS).to_list()):
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
    return "\n".join([*lines, "", _NOTES.format(error=_error(rows), full=BUDGETS[-1])])


def _plot(rows: Sequence[Row], documents: int, path: str) -> None:
    plot_tradeoff(
        [Run(row.series, _plot_label(row), row.milliseconds, row.ndcg) for row in rows],
        path,
        title=f"What a budget costs and buys: {documents:,} docstrings, {usable_cores()} cores",
        quality=f"nDCG@10 (standard error up to {_error(rows):.3f})",
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
