"""The latency-vs-budget sweep: what each budget, codec and plan costs, and how much of the exact result it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.bench.synthetic import NestedVectors
from metaindex.evaluation import ndcg_at_k, recall_at_k
from metaindex.evaluation.metrics import TIE
from metaindex.index import MetaIndex
from metaindex.planning.plan import Exact, Plan
from metaindex.result import SearchResult
from metaindex.scoring.reference import maxsim
from metaindex.timing import Timing, interleave

_CHECKED_QUERIES = 5
_SMALLEST = 1e-9  # below this an error is taken as it is


@dataclass(frozen=True, eq=False)
class Subject:
    """What is swept: the same documents in one index per codec, and at least one query: [B, R, d] or a list of [r_i, d].

    ``exact`` holds the documents in the most precise codec there is: float32, or the stored index itself. ``about`` int64 [B]:
    the ids of the documents that queries are about, where that is known. ``training``: other queries, to tune plans with.
    """

    indexes: dict[str, MetaIndex]
    exact: MetaIndex
    queries: NDArray | list[NDArray]
    about: NDArray[np.int64] | None
    description: dict[str, Any]
    training: NDArray | None = None


@dataclass(frozen=True)
class Answer:
    """What one way to search finds and reads, the median over queries.

    ``bytes``: document bytes that one query reads; ``rows``: its comparisons. ``recall``: share of the exact k best at the full
    budget that was found, by score. ``ndcg``: of the document that the query is about. ``score_error``: the largest error of a
    returned score, relative to the ``exact`` index's vectors at the same budget in float64, over the first queries.
    """

    codec: str
    search: str
    plan: str
    exact: bool
    scorer: str
    k: int
    bytes: int
    rows: int
    recall: float
    ndcg: float | None
    score_error: float


@dataclass(frozen=True)
class Row:
    """One way to search, measured: ``timing`` is of single queries."""

    answer: Answer
    timing: Timing

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self.answer), **self.timing.row()}


def synthetic(
    vectors: NestedVectors,
    queries: int,
    query_tokens: int,
    codecs: Sequence[str],
    threads: int | None,
    *,
    coarse: str | None = None,
    training: int = 0,
) -> Subject:
    """Seeded nested vectors, one index per codec, with a coarse stage where one is given, and so many queries to train with."""
    asked, about = vectors.queries(queries + training, query_tokens)
    built = {
        codec: MetaIndex(codec=codec, nested=True, num_threads=threads, coarse=coarse)
        for codec in dict.fromkeys((*codecs, "float32"))
    }
    for index in built.values():
        index.add(vectors.batches())
    shape = {"documents": vectors.documents, "doc_tokens": vectors.doc_tokens, "dim": vectors.dim}
    description = {"data": "synthetic nested vectors", **shape, "queries": queries, "query_tokens": query_tokens}
    description |= {"difficulty": vectors.difficulty, "coarse": coarse}
    indexes = {codec: built[codec] for codec in codecs}
    return Subject(indexes, built["float32"], asked[:queries], about[:queries], description, asked[queries:])


def stored(index: MetaIndex, queries: NDArray | list[NDArray], name: str) -> Subject:
    """An index that is there already; what its codec keeps is the truth."""
    shape = {"queries": len(queries), "query_tokens": max(map(len, queries)), "dim": queries[0].shape[1]}
    return Subject({index.schema.codec: index}, index, queries, None, {"data": name, "documents": len(index), **shape})


def sweep(subject: Subject, searches: Sequence[str], k: int, rounds: int) -> list[Row]:
    """Every codec with every search, a budget or plan as ``Plan.parse`` reads it, timed one query at a time and in turns.

    Raises:
        PlanError, ValueError: a search does not parse or does not fit the index.
    """
    pairs = list(product(subject.indexes, searches))
    best = np.asarray(subject.exact.search(subject.queries, k, plan="(*,*)").scores)
    # Answers come first: a search that can't run says so before anything is timed.
    answers = [_answer(subject, codec, search, k, best) for codec, search in pairs]
    calls = {f"{codec} {search}": _one_by_one(subject, codec, search, k) for codec, search in pairs}
    return [Row(answer, timing) for answer, timing in zip(answers, interleave(calls, rounds=rounds).values())]


def tuned(subject: Subject, k: int, recall: float, objective: str, seconds: float, seed: int) -> list[str]:
    """Plans for the first codec's index that cost less than all that find as much, up to ``recall`` and beyond: found with the
    training queries alone."""
    index = next(iter(subject.indexes.values()))
    tuning = index.tune(subject.training, k, recall, objective, seconds=seconds, seed=seed)
    return [str(run.plan) for run in tuning.frontier if len(run.plan.stages) > 1]


def _one_by_one(subject: Subject, codec: str, search: str, k: int) -> Callable[[], object]:
    index, upcoming = subject.indexes[codec], cycle(subject.queries)
    return lambda: index.search(next(upcoming), k, plan=search)


def _answer(subject: Subject, codec: str, search: str, k: int, best: NDArray[np.float32]) -> Answer:
    results = [subject.indexes[codec].search(query, k, plan=search) for query in subject.queries]
    hits = [[hit["id"] for hit in result.to_list()[0]] for result in results]
    tie = TIE * float(np.abs(best).max(initial=0, where=np.isfinite(best)))
    last = results[0].stats[-1]
    return Answer(
        codec=codec,
        search=search,
        plan=results[0].plan,
        exact=results[0].exact,
        scorer=f"{last.scorer} ({last.why})",
        k=k,
        bytes=int(np.median([sum(stage.bytes for stage in result.stats) for result in results])),
        rows=int(np.median([sum(stage.rows for stage in result.stats) for result in results])),
        recall=float(recall_at_k(subject.exact.score(subject.queries, hits), best, k, tolerance=tie).mean()),
        ndcg=None if subject.about is None else float(ndcg_at_k(hits, [{int(id_): 1.0} for id_ in subject.about], k).mean()),
        score_error=max(
            (_score_error(subject, *pair) for pair in zip(subject.queries[:_CHECKED_QUERIES], results)), default=0.0
        ),
    )


def _score_error(subject: Subject, query: NDArray, result: SearchResult) -> float:
    """The largest relative error of one query's scores."""
    query = query.astype(np.float64)
    if subject.exact.schema.normalize:
        query /= np.maximum(np.linalg.norm(query, axis=1, keepdims=True), _SMALLEST)
    last = Plan.parse(result.plan).stages[-1].source
    assert isinstance(last, Exact)
    hits = result.to_list()[0]
    found = np.array([hit["score"] for hit in hits])
    documents = subject.exact.get([hit["id"] for hit in hits])
    expected = np.array([maxsim(query[: last.r_q], document.tokens[: last.r_c]) for document in documents])
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), _SMALLEST), initial=0))


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one line each."""
    width = max(len(row.answer.search) for row in rows)
    head = f"{'search':<{width}}  {'codec':<8} {'ms':>9} {'best ms':>9} {'MB read':>9} {'recall':>7} {'nDCG':>6} {'error':>8}"
    return "\n".join([head, *(_line(row.answer, row.timing, width) for row in rows)])


def _line(answer: Answer, timing: Timing, width: int) -> str:
    ndcg = "" if answer.ndcg is None else f"{answer.ndcg:.3f}"
    return (
        f"{answer.search:<{width}}  {answer.codec:<8} {1e3 * timing.median:>9.3f} {1e3 * timing.best:>9.3f} "
        f"{answer.bytes / 1e6:>9.2f} {answer.recall:>7.3f} {ndcg:>6} {answer.score_error:>8.1e}"
    )
