"""numpy: float32 matrix products in chunks, the chunk size as what runs fastest here."""

from __future__ import annotations

import numpy as np

from benchmarks.contestant import Peer, Search, best, fastest
from benchmarks.problem import Answer, Problem

_CHUNK_TOKENS = (2_048, 8_192, 32_768, 131_072)


def _prepare(problem: Problem) -> Search:
    case = problem.case
    documents = problem.scored.reshape(-1, case.dim)
    queries = problem.queries.reshape(-1, case.dim)

    def search(chunk: int) -> Answer:
        scores = np.empty((case.queries, case.scored), dtype=np.float32)
        for start in range(0, len(documents), chunk):
            similar = queries @ documents[start : start + chunk].T
            most = similar.reshape(len(queries), -1, case.doc_tokens).max(axis=2)
            place = start // case.doc_tokens
            scores[:, place : place + most.shape[1]] = most.reshape(case.queries, case.query_tokens, -1).sum(axis=1)
        return best(problem, scores)

    chunk = fastest([chunk - chunk % case.doc_tokens for chunk in _CHUNK_TOKENS], search)
    return lambda: search(chunk)


PEERS = (
    Peer(
        "numpy float32 chunks",
        "numpy",
        "float32",
        "matmul, max, sum, argpartition; candidates lie together beforehand",
        _prepare,
    ),
)
