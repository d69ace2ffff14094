"""flash-maxsim: fused Triton kernels. It has an entry point for every kind of shape, and all that fit a case take part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flash_maxsim as fm
import torch
from torch import Tensor

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.contestant import GpuPeer, ScoreEntry, in_parts
from benchmarks.gpu.problem import GpuProblem

_ADDRESSABLE = 2**31  # elements; its packed and its gathering kernels count in int32


def _lengths(problem: GpuProblem, r_c: int) -> Tensor | None:
    """How many tokens of each document count, where not all of them do: its way to read a prefix without a copy."""
    if r_c == problem.case.doc_tokens:
        return None
    return torch.full((len(problem.documents),), r_c, dtype=torch.int32, device=problem.documents.device)


def _scan(problem: GpuProblem, r_c: int) -> ScoreEntry:
    lengths, (queries, documents) = _lengths(problem, r_c), (problem.queries, problem.documents)
    if len(queries) == 1:
        return ScoreEntry(problem, lambda: fm.flash_maxsim(queries[0], documents, lengths)[None])
    return ScoreEntry(problem, lambda: fm.flash_maxsim_batched(queries, documents, lengths, shared_docs=True))


def _prefix(problem: GpuProblem, r_c: int) -> ScoreEntry:
    return ScoreEntry(problem, lambda: fm.flash_maxsim(problem.queries[0], problem.documents[:, :r_c])[None])


def _persistent(problem: GpuProblem, r_c: int) -> ScoreEntry:
    lengths = _lengths(problem, r_c)
    return ScoreEntry(problem, lambda: fm.flash_maxsim_persistent(problem.queries, problem.documents, lengths))


def _packed(problem: GpuProblem, r_c: int) -> ScoreEntry:
    case, device = problem.case, problem.documents.device
    starts = torch.arange(case.documents + 1, dtype=torch.int32, device=device) * case.doc_tokens
    packed = problem.documents.view(-1, case.dim)
    return ScoreEntry(problem, lambda: fm.flash_maxsim_packed(problem.queries[0], packed, starts, case.doc_tokens)[None])


def _int8(problem: GpuProblem, r_c: int) -> ScoreEntry:
    codes, scales = in_parts(fm.quantize_int8_symmetric, problem.documents)
    query, query_scales = fm.quantize_query_int8(problem.queries[0])
    lengths = _lengths(problem, r_c)

    def scores() -> Tensor:
        found: Tensor = fm.flash_maxsim_int8x8(problem.queries[0], codes, scales, query, query_scales, lengths)
        return found[None]

    return ScoreEntry(problem, scores)


def _rerank(problem: GpuProblem, r_c: int) -> ScoreEntry:
    assert problem.candidates is not None
    case, packed = problem.case, problem.documents.view(-1, problem.case.dim)
    lengths = torch.full((problem.candidates.shape[1],), r_c, dtype=torch.int32, device=packed.device)
    offsets = (problem.candidates * case.doc_tokens).int()

    def scores() -> Tensor:
        each = [fm.flash_maxsim_rerank_direct(q, packed, at, lengths, r_c) for q, at in zip(problem.queries, offsets)]
        return torch.stack(each)

    return ScoreEntry(problem, scores)


def _rerank_padded(problem: GpuProblem, r_c: int) -> ScoreEntry:
    candidates, documents = problem.candidates, problem.documents[:, :r_c]
    return ScoreEntry(problem, lambda: fm.flash_maxsim_rerank_padded(problem.queries, documents[candidates]))


def _scans(case: GpuCase) -> str | None:
    return None if case.candidates is None else "its other entry points take candidates"


def _one_query(case: GpuCase) -> str | None:
    return _scans(case) or (None if case.queries == 1 else "it takes one query")


def _packs(case: GpuCase) -> str | None:
    if case.budgets:
        return "it reads whole documents"
    elements = case.documents * case.doc_tokens * case.dim
    return _one_query(case) or (f"{elements:,} elements overflow its int32 offsets" if elements >= _ADDRESSABLE else None)


def _holds_all_of_d(case: GpuCase) -> str | None:
    return _one_query(case) or (None if case.dim <= 2048 else "its int8 kernel holds all of d at once, up to 2048")


def _reranks(case: GpuCase) -> str | None:
    return None if case.candidates is not None else "it takes candidates"


def _cuts(case: GpuCase) -> str | None:
    return _one_query(case) or (None if case.budgets else "there is no prefix to copy")


def _codes(case: GpuCase) -> Mapping[str, int]:
    return {"flash-maxsim int8": case.documents * case.doc_tokens * (case.dim + 2)}


def _copy(case: GpuCase) -> Mapping[str, int]:
    return {"a copied prefix": case.documents * max(case.read_tokens) * case.dim * 2}


def _gathered(case: GpuCase) -> Mapping[str, int]:
    return {"copied candidates": case.nbytes(2 * case.dim)}


def _peer(
    entry: str, codec: str, prepare: Callable, why_not: Callable, how: str = "", keeps: Callable | None = None
) -> GpuPeer:
    more = {} if keeps is None else {"keeps": keeps}
    name = f"flash-maxsim {entry}".removesuffix(" ")
    return GpuPeer(name, "flash-maxsim", codec, f"{how or entry}, topk", prepare, why_not, **more)


PEERS = (
    _peer("", "float16", _scan, _scans, "flash_maxsim, of a batch flash_maxsim_batched; a prefix by doc_lengths"),
    _peer("persistent", "float16", _persistent, _scans, "flash_maxsim_persistent; a prefix by doc_lengths"),
    _peer("packed", "float16", _packed, _packs, "flash_maxsim_packed"),
    _peer("int8x8", "int8", _int8, _holds_all_of_d, "flash_maxsim_int8x8, both sides quantized beforehand", _codes),
    _peer("copied prefix", "float16", _prefix, _cuts, "flash_maxsim of documents[:, :r_c], which it copies", _copy),
    _peer("rerank_direct", "float16", _rerank, _reranks, "flash_maxsim_rerank_direct, query by query, documents in place"),
    _peer("rerank_padded", "float16", _rerank_padded, _reranks, "copied candidates, flash_maxsim_rerank_padded", _gathered),
)
