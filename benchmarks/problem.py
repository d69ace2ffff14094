"""What contestants are given, and the truth they are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case
from metaindex.bench.synthetic import NestedVectors
from metaindex.codecs import codec


class Answer(NamedTuple):
    """The k best of each query: ``scores`` [B, k], best first, and ``rows`` [B, k], the documents' places in the corpus."""

    scores: NDArray
    rows: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """``documents`` [N, T, d] and ``queries`` [B, R, d], float32; ``candidates`` int64 [C] among the documents, or ``None``."""

    case: Case
    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    candidates: NDArray[np.int64] | None

    @property
    def scored(self) -> NDArray[np.float32]:
        """The documents that the queries are compared with, as one array: for contestants that can't pick rows themselves."""
        return self.documents if self.candidates is None else np.ascontiguousarray(self.documents[self.candidates])

    def rows(self, places: NDArray) -> NDArray[np.int64]:
        """The documents at ``places`` of ``scored``."""
        return np.asarray(places if self.candidates is None else self.candidates[places], dtype=np.int64)


@dataclass(frozen=True)
class Errors:
    """How far the returned scores are from float64 ones, relative to them, and how many of the true best were returned.

    ``original``: against the vectors as they were given. ``decoded``: against what the contestant's codec made of documents and
    queries; ``None`` where the codec is none of ours. ``recall``: the share of the k returned documents whose true score
    reaches the true k-th best, a millionth of it forgiven.
    """

    original: float
    decoded: float | None
    recall: float


def make(case: Case, seed: int) -> Problem:
    vectors = NestedVectors(case.documents, case.doc_tokens, case.dim, seed)
    queries, _ = vectors.queries(case.queries, case.query_tokens)
    candidates = None
    if case.candidates is not None:
        candidates = np.random.default_rng((seed, 4)).choice(case.documents, size=case.candidates, replace=False)
    return Problem(case, vectors.array(), queries, candidates)


def maxsim(queries: NDArray, documents: NDArray) -> NDArray[np.float64]:
    """Scores float64 [B, n] of queries [B, R, d] and documents [n, T, d]."""
    batch, tokens, dim = queries.shape
    flat = queries.reshape(-1, dim).astype(np.float64)
    similar = flat @ documents.reshape(-1, dim).astype(np.float64).T
    scores: NDArray[np.float64] = similar.reshape(batch, tokens, len(documents), -1).max(axis=3).sum(axis=1)
    return scores


def truth(problem: Problem) -> NDArray[np.float64]:
    """The k-th best float64 score of each query, [B]."""
    case = problem.case
    size = max(1, (1 << 22) // (case.doc_tokens * max(case.dim, case.queries * case.query_tokens)))
    best = np.empty((case.queries, 0))
    for start in range(0, case.scored, size):
        rows = slice(start, start + size)
        part = problem.documents[rows] if problem.candidates is None else problem.documents[problem.candidates[rows]]
        best = np.concatenate([best, maxsim(problem.queries, part)], axis=1)
        if best.shape[1] > 4 * case.k:
            best = np.partition(best, -case.k, axis=1)[:, -case.k :]
    return np.sort(best, axis=1)[:, -min(case.k, best.shape[1])]


def errors(problem: Problem, answer: Answer, kth_best: NDArray[np.float64], codec_name: str | None) -> Errors:
    """Check an answer: the score of every returned document is computed again."""
    original, decoded, hits = 0.0, 0.0, 0
    for query, scores, rows, kth in zip(problem.queries, answer.scores, answer.rows, kth_best):
        documents = problem.documents[rows]
        exact = maxsim(query[None], documents)[0]
        original = max(original, _relative(scores, exact))
        hits += len(np.unique(rows[exact >= kth - 1e-6 * abs(kth)]))
        if codec_name is not None:
            found = codec(codec_name)
            kept = maxsim(found.decode(found.encode(query[None])), found.decode(found.encode(documents)))[0]
            decoded = max(decoded, _relative(scores, kept))
    recall = hits / (len(answer.rows) * answer.rows.shape[1])
    return Errors(original, None if codec_name is None else decoded, recall)


def _relative(scores: NDArray, exact: NDArray[np.float64]) -> float:
    error = float(np.max(np.abs(scores - exact) / np.maximum(np.abs(exact), 1e-9)))
    return error if np.isfinite(error) else float("inf")
