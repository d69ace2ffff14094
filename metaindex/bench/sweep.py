"""The latency-vs-budget sweep: what each budget, codec and plan costs, and how much of the exact result it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.bench.synthetic import NestedVectors
from metaindex.bench.timing import Timing, interleave
from metaindex.evaluation import ndcg_at_k, recall_at_k
from metaindex.index import MetaIndex
from metaindex.scoring.reference import maxsim

# Scores nearer than this share of the largest exact score are ties: recall counts either document.
TIE = 1e-5

_CHECKED_QUERIES = 5


@dataclass(frozen=True, eq=False)
class Subject:
    """What is swept: the same documents in one index per codec, and queries float32 [B, R, d].

    ``exact`` holds them in the most precise codec there is: float32, or the stored index itself. ``about`` int64 [B] are the ids of
    the documents that queries are about, where that is known.
    """

    indexes: dict[str, MetaIndex]
    exact: MetaIndex
    queries: NDArray[np.float32]
    about: NDArray[np.int64] | None
    description: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One way to search, measured.

    ``median_ms`` and ``best_ms`` are of single queries. ``bytes``: document bytes that one query reads; ``rows``: its comparisons.
    ``recall``: share of the exact k best at the full budget that was found, by score. ``ndcg``: of the document that the query is
    about. ``score_error``: the largest error of a returned score, relative to the score of the ``exact`` index's vectors at the
    same budget in float64, over the first queries.
    """

    codec: str
    search: str
    plan: str
    exact: bool
    scorer: str
    k: int
    median_ms: float
    best_ms: float
    calls: int
    bytes: int
    rows: int
    recall: float
    ndcg: float | None
    score_error: float


def synthetic(vectors: NestedVectors, queries: int, query_tokens: int, codecs: Sequence[str], threads: int | None) -> Subject:
    """Seeded nested vectors, one index per codec."""
    asked, about = vectors.queries(queries, query_tokens)
    built = {codec: MetaIndex(codec=codec, nested=True, num_threads=threads) for codec in dict.fromkeys((*codecs, "float32"))}
    for index in built.values():
        index.add(vectors.batches())
    shape = {"documents": vectors.documents, "doc_tokens": vectors.doc_tokens, "dim": vectors.dim}
    description = {"data": "synthetic nested vectors", **shape, "queries": queries, "query_tokens": query_tokens}
    return Subject({codec: built[codec] for codec in codecs}, built["float32"], asked, about, description)


def stored(index: MetaIndex, queries: NDArray[np.float32], name: str) -> Subject:
    """An index that is there already; what its codec keeps is the truth."""
    shape = {"documents": len(index), "queries": len(queries), "query_tokens": queries.shape[1], "dim": queries.shape[2]}
    return Subject({index.schema.codec: index}, index, queries, None, {"data": name, **shape})


def sweep(subject: Subject, searches: Sequence[str], k: int, rounds: int) -> list[Row]:
    """Every codec with every search, a budget or plan as ``Plan.parse`` reads it, timed one query at a time and in turns.

    Raises:
        PlanError, ValueError: a search does not parse or does not fit the index.
    """
    pairs = list(product(subject.indexes, searches))
    best = np.asarray(subject.exact.search(subject.queries, k).scores)
    # Answers come first: a search that can't run says so before anything is timed.
    rows = [_answered(subject, codec, search, k, best) for codec, search in pairs]
    timings = interleave({f"{codec} {search}": _one_by_one(subject, codec, search, k) for codec, search in pairs}, rounds=rounds)
    return [row(timings[f"{codec} {search}"]) for row, (codec, search) in zip(rows, pairs)]


def _one_by_one(subject: Subject, codec: str, search: str, k: int) -> Callable[[], object]:
    index, upcoming = subject.indexes[codec], cycle(subject.queries)
    return lambda: index.search(next(upcoming), k, plan=search)


def _answered(subject: Subject, codec: str, search: str, k: int, best: NDArray[np.float32]) -> Callable[[Timing], Row]:
    index, queries = subject.indexes[codec], subject.queries
    results = [index.search(query, k, plan=search) for query in queries]
    hits = [[hit["id"] for hit in result.to_list()[0]] for result in results]
    found = subject.exact.score(queries, hits)
    recall = recall_at_k(found, best, k, tolerance=TIE * float(np.abs(best[np.isfinite(best)]).max(initial=1e-30)))
    about = None if subject.about is None else [{int(id_): 1.0} for id_ in subject.about]
    work = [(sum(stage.bytes for stage in result.stats), sum(stage.rows for stage in result.stats)) for result in results]
    nbytes, compared = np.median(work, axis=0)
    last = results[0].stats[-1]
    r_q, r_c = (int(part) for part in results[0].plan.split()[-1].strip("()").split(","))
    errors = [
        abs(hit["score"] - score) / max(abs(score), 1e-30)
        for query, result in zip(queries[:_CHECKED_QUERIES], results)
        for hit, score in _rescored(subject.exact, query[:r_q], result.to_list()[0], r_c)
    ]
    measured = {
        "codec": codec,
        "search": search,
        "plan": results[0].plan,
        "exact": results[0].exact,
        "scorer": f"{last.scorer} ({last.why})",
        "k": k,
        "bytes": int(nbytes),
        "rows": int(compared),
        "recall": float(recall.mean()),
        "ndcg": None if about is None else float(ndcg_at_k(hits, about, k).mean()),
        "score_error": float(max(errors, default=0.0)),
    }
    return lambda timing: Row(**measured, **timing.row())


def _rescored(
    exact: MetaIndex, query: NDArray[np.float32], hits: list[dict[str, Any]], r_c: int
) -> Iterator[tuple[dict[str, Any], float]]:
    for hit, document in zip(hits, exact.get([hit["id"] for hit in hits])):
        yield hit, maxsim(query, document.tokens[:r_c])


def as_json(row: Row, subject: Subject, record: dict[str, Any]) -> dict[str, Any]:
    """A row as it is written: with what was swept and the run's record."""
    return {**asdict(row), "subject": subject.description, "run": record}


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    width = max(len(row.search) for row in rows)
    head = f"{'search':<{width}}  {'codec':<8} {'ms':>9} {'best ms':>9} {'MB read':>9} {'recall':>7} {'nDCG':>6} {'error':>8}"
    lines = [
        f"{row.search:<{width}}  {row.codec:<8} {row.median_ms:>9.3f} {row.best_ms:>9.3f} {row.bytes / 1e6:>9.2f} "
        f"{row.recall:>7.3f} {'' if row.ndcg is None else format(row.ndcg, '.3f'):>6} {row.score_error:>8.1e}"
        for row in rows
    ]
    return "\n".join([head, *lines])
