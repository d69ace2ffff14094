"""late-interaction-kernels: fused Triton kernels, with a top-k in chunks of documents, pair lists and float8."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from late_interaction_kernels import maxsim, retrieve
from late_interaction_kernels.fp8 import maxsim_inference_fp8, quantize_fp8_per_token
from late_interaction_kernels.score_pairs import score_pairs_packed
from torch import Tensor

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.contestant import GpuPeer, ScoreEntry, in_parts
from benchmarks.gpu.problem import GpuProblem

_CHUNK = 65_536  # documents; also what keeps its int32 offsets from overflowing
_PACKAGE = "late-interaction-kernels"


def _scan(chunk: int | None):
    def prepare(problem: GpuProblem, r_c: int) -> ScoreEntry:
        documents = problem.documents[:, :r_c]  # a view: it reads strided documents

        def best(k: int) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = retrieve(problem.queries, documents, k, normalize=False, chunk=chunk)
            return found

        return ScoreEntry(problem, lambda: maxsim(problem.queries, documents, normalize=False), best)

    return prepare


def _float8(problem: GpuProblem, r_c: int) -> ScoreEntry:
    codes, scales = in_parts(quantize_fp8_per_token, problem.documents)
    query, query_scales = quantize_fp8_per_token(problem.queries)

    def scores() -> Tensor:
        found: Tensor = maxsim_inference_fp8(query, codes, scale_Q=query_scales, scale_D=scales)
        return found

    return ScoreEntry(problem, scores)


def _pairs(problem: GpuProblem, r_c: int) -> ScoreEntry:
    """Its pair list: each candidate of each query, documents in place."""
    assert problem.candidates is not None
    case, device = problem.case, problem.documents.device
    queries, documents = problem.queries.reshape(-1, case.dim), problem.documents.view(-1, case.dim)
    query_starts = torch.arange(case.queries + 1, dtype=torch.int32, device=device) * case.query_tokens
    starts = torch.arange(case.documents + 1, dtype=torch.int32, device=device) * case.doc_tokens
    asking = torch.arange(case.queries, dtype=torch.int32, device=device).repeat_interleave(case.scored)
    asked = problem.candidates.flatten().int()
    limits = {"max_seqlen_q": case.query_tokens, "max_seqlen_d": case.doc_tokens}

    def scores() -> Tensor:
        found: Tensor = score_pairs_packed(queries, documents, query_starts, starts, asking, asked, **limits)
        return found.view(case.queries, -1)

    return ScoreEntry(problem, scores)


def _copied(problem: GpuProblem, r_c: int) -> ScoreEntry:
    candidates, documents = problem.candidates, problem.documents[:, :r_c]
    return ScoreEntry(problem, lambda: maxsim(problem.queries, documents[candidates], normalize=False))


def _scans(case: GpuCase) -> str | None:
    return None if case.candidates is None else "its other entry points take candidates"


def _large(case: GpuCase) -> str | None:
    return _scans(case) or (None if case.documents > _CHUNK else "one chunk holds all documents")


def _whole(case: GpuCase) -> str | None:
    return _scans(case) or ("it copies what it reads of a prefix" if case.budgets else None)


def _reranks(case: GpuCase) -> str | None:
    return None if case.candidates is not None else "it takes candidates"


def _codes(case: GpuCase) -> Mapping[str, int]:
    return {"float8": case.documents * case.doc_tokens * (case.dim + 4)}


def _gathered(case: GpuCase) -> Mapping[str, int]:
    return {"copied candidates": case.nbytes(2 * case.dim)}


PEERS = (
    GpuPeer("late-interaction-kernels", _PACKAGE, "float16", "retrieve, of scores alone maxsim", _scan(None), _scans),
    GpuPeer(
        "late-interaction-kernels chunked",
        _PACKAGE,
        "float16",
        f"retrieve(chunk={_CHUNK}), of scores alone maxsim",
        _scan(_CHUNK),
        _large,
    ),
    GpuPeer(
        "late-interaction-kernels float8",
        _PACKAGE,
        "float8",
        "fp8.maxsim_inference_fp8, both sides quantized beforehand by token, topk",
        _float8,
        _whole,
        _codes,
    ),
    GpuPeer(
        "late-interaction-kernels pairs",
        _PACKAGE,
        "float16",
        "score_pairs.score_pairs_packed, documents in place, topk",
        _pairs,
        _reranks,
    ),
    GpuPeer(
        "late-interaction-kernels copied",
        _PACKAGE,
        "float16",
        "copied candidates, maxsim with a list for each query, topk",
        _copied,
        _reranks,
        _gathered,
    ),
)
