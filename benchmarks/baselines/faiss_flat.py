"""FAISS, for the case of one token on both sides: its flat index on float32 and its 8-bit scalar quantiser."""

from __future__ import annotations

from collections.abc import Callable

import faiss

from benchmarks.cases import Case
from benchmarks.contestant import Peer, Search
from benchmarks.problem import Answer, Problem


def _prepared(factory: str) -> Callable[[Problem], Search]:
    def prepare(problem: Problem) -> Search:
        faiss.omp_set_num_threads(problem.case.threads)
        index = faiss.index_factory(problem.case.dim, factory, faiss.METRIC_INNER_PRODUCT)
        documents, queries = problem.scored[:, 0], problem.queries[:, 0]
        index.train(documents)
        index.add(documents)

        def search() -> Answer:
            scores, places = index.search(queries, problem.case.k)
            return Answer(scores, problem.rows(places))

        return search

    return prepare


def _one_token(case: Case) -> bool:
    return case.doc_tokens == case.query_tokens == 1


PEERS = (
    Peer("FAISS Flat float32", "faiss-cpu", "float32", "IndexFlatIP.search", _prepared("Flat"), _one_token),
    Peer(
        "FAISS SQ8",
        "faiss-cpu",
        "int8",
        "IndexScalarQuantizer.search, 8 bits",
        _prepared("SQ8"),
        _one_token,
        our_encoding=False,
    ),
    Peer(
        "FAISS SQfp16",
        "faiss-cpu",
        "float16",
        "IndexScalarQuantizer.search, fp16",
        _prepared("SQfp16"),
        _one_token,
        our_encoding=False,
    ),
)
