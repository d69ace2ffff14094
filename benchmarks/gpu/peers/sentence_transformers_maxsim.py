"""sentence-transformers: chunked torch with padding and masks, written apart from ours and from the fused kernels."""

from __future__ import annotations

import torch
from sentence_transformers.util import maxsim

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.contestant import GpuPeer, ScoreEntry
from benchmarks.gpu.problem import GpuProblem


def _prepare(problem: GpuProblem, r_c: int) -> ScoreEntry:
    documents = problem.documents[:, :r_c]
    if problem.candidates is None:
        return ScoreEntry(problem, lambda: maxsim(problem.queries, documents))
    pairs = list(zip(problem.queries, problem.candidates))
    return ScoreEntry(problem, lambda: torch.cat([maxsim(query[None], documents[rows]) for query, rows in pairs]))


def _why_not(case: GpuCase) -> str | None:
    too_much = case.operations > 1e14
    return "an oracle, not a fast path: it would take most of the case's time" if too_much else None


PEERS = (
    GpuPeer(
        "sentence-transformers maxsim",
        "sentence-transformers",
        "float16",
        "util.maxsim, topk; candidates copied together first",
        _prepare,
        _why_not,
    ),
)
