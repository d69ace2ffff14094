"""NumKong: its packed MaxSim, which picks each query token's winner from unscaled int8 dots and then scores it in bf16, and its
packed int8 matrix product with the rest done by numpy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numkong
import numpy as np

from benchmarks.cases import Case
from benchmarks.contestant import Peer, Search, best, fastest
from benchmarks.problem import Answer, Problem
from metaindex.codecs import codec

_CHUNK_TOKENS = (2_048, 8_192, 32_768)


def _pack(tokens: np.ndarray) -> numkong.MaxSimPackedMatrix:
    return numkong.maxsim_pack(numkong.astype(np.ascontiguousarray(tokens), "bfloat16"), "bf16")


def _prepare_maxsim(problem: Problem) -> Search:
    case = problem.case
    documents = [_pack(document) for document in problem.scored]
    queries = [_pack(query) for query in problem.queries]
    bounds = np.linspace(0, len(documents), case.threads + 1).astype(int)
    parts = [documents[start:stop] for start, stop in pairwise(bounds)]
    pool = ThreadPoolExecutor(case.threads)
    score = numkong.maxsim_packed

    def search(threads: int) -> Answer:
        if threads == 1:
            distances = [[score(query, document) for document in documents] for query in queries]
        else:
            halves = [pool.map(lambda part, query=query: [score(query, each) for each in part], parts) for query in queries]
            distances = [list(chain.from_iterable(half)) for half in halves]
        # It answers with the sum of angular distances, 1 - cosine; the vectors are unit vectors.
        return best(problem, case.query_tokens - np.asarray(distances, dtype=np.float64))

    threads = fastest(sorted({1, case.threads}), search)
    return lambda: search(threads)


def _prepare_dots(problem: Problem) -> Search:
    case = problem.case
    parts = codec("int8").encode(problem.scored.reshape(-1, case.dim))
    query_parts = codec("int8").encode(problem.queries.reshape(-1, case.dim))
    queries = numkong.dots_pack(query_parts.codes)
    pool = ThreadPoolExecutor(case.threads)
    rows = len(query_parts.codes)
    scales = parts.scales
    assert scales is not None

    def score(start: int, stop: int, chunk: int, scores: np.ndarray) -> None:
        for first in range(start, stop, chunk):
            last = min(first + chunk, stop)
            dots = np.asarray(numkong.dots_packed(parts.codes[first:last], queries))
            similar = dots * scales[first:last, None]
            most = similar.reshape(-1, case.doc_tokens, rows).max(axis=1) * query_parts.scales
            place = first // case.doc_tokens
            scores[place : place + len(most)] = most.reshape(-1, case.queries, case.query_tokens).sum(axis=2)

    def search(chunk: int) -> Answer:
        scores = np.empty((case.scored, case.queries), dtype=np.float32)
        bounds = np.linspace(0, case.scored, case.threads + 1).astype(int) * case.doc_tokens
        list(pool.map(lambda at: score(int(bounds[at]), int(bounds[at + 1]), chunk, scores), range(case.threads)))
        return best(problem, scores.T)

    chunk = fastest([chunk - chunk % case.doc_tokens for chunk in _CHUNK_TOKENS], search)
    return lambda: search(chunk)


def _many_tokens(case: Case) -> bool:
    return case.doc_tokens > 1  # one packed object per token would measure Python


PEERS = (
    Peer(
        "NumKong maxsim bf16",
        "numkong",
        "bfloat16",
        "maxsim_packed document by document, argpartition",
        _prepare_maxsim,
        _many_tokens,
    ),
    Peer(
        "NumKong int8 dots",
        "numkong",
        "int8",
        "dots_packed in chunks, scales, max and sum by numpy, argpartition",
        _prepare_dots,
    ),
)
