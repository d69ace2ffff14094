"""torch on the CPU: matrix products in chunks, the max over a document's tokens, the sum over query tokens, topk.

Chunk size and the order of the product are chosen, outside the timer, as what runs fastest here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch

from benchmarks.contestant import Peer, Search, fastest
from benchmarks.problem import Answer, Problem
from metaindex.codecs import codec

_CHUNK_TOKENS = (2_048, 8_192, 32_768, 131_072)

# (documents' tokens [n * T, d], their scales or None, the chunk) -> scores [B, n]
Scan = Callable[[torch.Tensor, Any, tuple[int, bool]], torch.Tensor]


def _reduced(problem: Problem, similar: torch.Tensor, document_first: bool) -> torch.Tensor:
    """Scores float32 [B, n] from similarities [n * T, B * R] or [B * R, n * T]."""
    case = problem.case
    if document_first:
        most = similar.view(-1, case.doc_tokens, case.queries * case.query_tokens).amax(1)
        return most.view(-1, case.queries, case.query_tokens).sum(2, dtype=torch.float32).t()
    most = similar.view(case.queries * case.query_tokens, -1, case.doc_tokens).amax(2)
    return most.view(case.queries, case.query_tokens, -1).sum(1, dtype=torch.float32)


def _float_scan(problem: Problem, dtype: torch.dtype) -> Scan:
    queries = torch.from_numpy(problem.queries).reshape(-1, problem.case.dim).to(dtype)

    def scan(documents: torch.Tensor, _: Any, how: tuple[int, bool]) -> torch.Tensor:
        chunk, document_first = how
        parts = torch.split(documents, chunk)
        if document_first:
            return torch.cat([_reduced(problem, part @ queries.t(), True) for part in parts], 1)
        return torch.cat([_reduced(problem, queries @ part.t(), False) for part in parts], 1)

    return scan


def _int8_scan(problem: Problem) -> Scan:
    parts = codec("int8").encode(problem.queries.reshape(-1, problem.case.dim))
    queries, query_scales = torch.from_numpy(parts.codes), torch.from_numpy(parts.scales)

    def scan(documents: torch.Tensor, scales: torch.Tensor, how: tuple[int, bool]) -> torch.Tensor:
        chunk, document_first = how
        found = []
        for part, scale in zip(torch.split(documents, chunk), torch.split(scales, chunk)):
            if document_first:
                similar = torch._int_mm(part, queries.t()) * scale[:, None]
            else:
                similar = torch._int_mm(queries, part.t()) * scale
            found.append(
                _reduced(problem, similar.mul_(query_scales if document_first else query_scales[:, None]), document_first)
            )
        return torch.cat(found, 1)

    return scan


def _prepared(name: str, *, gathers: bool) -> Callable[[Problem], Search]:
    def prepare(problem: Problem) -> Search:
        case = problem.case
        torch.set_num_threads(case.threads)
        kept = problem.documents if gathers else problem.scored
        if name == "int8":
            parts = codec(name).encode(kept)
            documents, scales = torch.from_numpy(parts.codes), torch.from_numpy(parts.scales)
            scan = _int8_scan(problem)
        else:
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
            documents, scales = torch.from_numpy(kept).to(dtype), None
            scan = _float_scan(problem, dtype)
        candidates = torch.from_numpy(problem.candidates) if gathers else None

        def search(how: tuple[int, bool]) -> Answer:
            chosen, chosen_scales = documents, scales
            if candidates is not None:
                chosen = documents.index_select(0, candidates)
                chosen_scales = None if scales is None else scales.index_select(0, candidates)
            flat = chosen.reshape(-1, case.dim)
            scores = scan(flat, None if chosen_scales is None else chosen_scales.reshape(-1), how)
            found, places = scores.topk(min(case.k, case.scored), dim=1)
            return Answer(found.numpy(), problem.rows(places.numpy()))

        chunks = [chunk - chunk % case.doc_tokens for chunk in _CHUNK_TOKENS]
        with torch.inference_mode():
            how = fastest(product(chunks, (True, False)), search)

        def run() -> Answer:
            with torch.inference_mode():
                return search(how)

        return run

    return prepare


_HOW = {
    "int8": "torch._int_mm, scales, amax, sum, topk",
    "bfloat16": "bf16 matmul, amax, sum, topk",
    "float32": "matmul, amax, sum, topk",
}

PEERS = tuple(
    Peer(f"torch {name} chunks", "torch", name, how, _prepared(name, gathers=False), lambda case: case.candidates is None)
    for name, how in _HOW.items()
) + tuple(
    Peer(
        f"torch {name} chunks, {'gather' if gathers else 'no gather'}",
        "torch",
        name,
        how + ("; index_select of the candidates first" if gathers else "; the candidates lie together beforehand"),
        _prepared(name, gathers=gathers),
        lambda case: case.candidates is not None,
    )
    for name, how in _HOW.items()
    for gathers in (True, False)
)
