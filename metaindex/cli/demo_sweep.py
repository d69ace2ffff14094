"""The demo's measurements: what each budget costs and what it buys, on one corpus with known answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.evaluation import ndcg_at_k, recall_at_k
from metaindex.index import MetaIndex
from metaindex.timing import interleave

K = 10
BUDGETS = ("(1,1)", "(2,4)", "(4,8)", "(8,16)", "(16,32)", "(16,64)")
# A score is a sum over 16 query tokens of cosines in float32: scores nearer than this are ties.
SCORE_TOLERANCE = 1e-3

_TIMED_QUERIES = 50


@dataclass(frozen=True, eq=False)
class Corpus:
    """Vectors of N documents and of B queries, each query about one document.

    ``documents`` [N, T, d] and ``queries`` [B, R, d] are nested; ``answers`` [B]: ids of the documents that queries are about.
    ``document_sentences`` [N, d] and ``query_sentences`` [B, d]: sentence embeddings. Ids are places, 0 to N - 1.
    """

    documents: NDArray[np.float32]
    document_sentences: NDArray[np.float32]
    queries: NDArray[np.float32]
    query_sentences: NDArray[np.float32]
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One way to search, measured: the median ``milliseconds`` of single queries, the document ``bytes`` that one reads.

    ``ndcg`` and ``recall``, at 10, are means over all queries; ``ndcg_error`` is the standard error of that mean.
    """

    series: str
    search: str
    codec: str
    milliseconds: float
    bytes: int
    ndcg: float
    ndcg_error: float
    recall: float


@dataclass(frozen=True, eq=False)
class _Contestant:
    series: str
    search: str
    index: MetaIndex
    queries: NDArray[np.float32]
    plan: str


def build(documents: NDArray[np.float32], codec: str) -> MetaIndex:
    """An index in memory of documents [N, T, d] whose tokens are nested."""
    index = MetaIndex(codec=codec, nested=True)
    index.add(documents)
    return index


def cascade(documents: int) -> str:
    """A plan that ranks a twentieth of the documents in full, after one vector of each and eight of a fifth."""
    first, second = max(K, documents // 5), max(K, documents // 20)
    return f"(1,1)>{first} (4,8)>{second} {BUDGETS[-1]}"


def sweep(corpus: Corpus, codec: str) -> list[Row]:
    """Every row of the demo's table, timed in turns so that a noisy moment of the machine meets all rows alike."""
    exact = build(corpus.documents, "float32")
    best = exact.search(corpus.queries, K).scores
    contestants = _contestants(corpus, exact, codec)
    timings = interleave({str(number): _one_by_one(each) for number, each in enumerate(contestants)})
    return [_row(each, corpus, exact, best, 1e3 * timing.median) for each, timing in zip(contestants, timings.values())]


def _contestants(corpus: Corpus, exact: MetaIndex, codec: str) -> list[_Contestant]:
    index = exact if codec == "float32" else build(corpus.documents, codec)
    sentences = build(corpus.document_sentences[:, None], codec)
    queries, plan = corpus.queries, cascade(len(index))
    rows = [_Contestant("sentence embedding", "one vector", sentences, corpus.query_sentences[:, None], "(1,1)")]
    rows += [_Contestant("budget", budget, index, queries, budget) for budget in BUDGETS]
    rows.append(_Contestant("cascade", plan, index, queries, plan))
    for other in ("float32", "int8"):
        if other != codec:
            full = exact if other == "float32" else build(corpus.documents, other)
            rows.append(_Contestant("other codecs, full budget", BUDGETS[-1], full, queries, BUDGETS[-1]))
    return rows


def _one_by_one(each: _Contestant) -> Any:
    """A call that searches for one query, the next one each time."""
    upcoming = cycle(each.queries[:_TIMED_QUERIES])
    return lambda: each.index.search(next(upcoming), K, plan=each.plan)


def _row(each: _Contestant, corpus: Corpus, exact: MetaIndex, best: NDArray[np.float32], milliseconds: float) -> Row:
    hits = [[hit["id"] for hit in found] for found in each.index.search(each.queries, K, plan=each.plan).to_list()]
    read = [_bytes(each.index.search(query, K, plan=each.plan)) for query in each.queries[:_TIMED_QUERIES]]
    ndcg = ndcg_at_k(hits, [{int(answer): 1.0} for answer in corpus.answers], K)
    return Row(
        each.series,
        each.search,
        each.index.schema.codec,
        milliseconds,
        int(np.median(read)),
        float(ndcg.mean()),
        float(ndcg.std() / len(ndcg) ** 0.5),
        float(recall_at_k(exact.score(corpus.queries, hits), best, K, tolerance=SCORE_TOLERANCE).mean()),
    )


def _bytes(result: Any) -> int:
    return sum(stage.bytes for stage in result.stats)
