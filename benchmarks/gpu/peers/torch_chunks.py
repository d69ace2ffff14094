"""torch on a GPU: matrix products in chunks, the max over a document's tokens, the sum over query tokens.

Twice: with similarities rounded to float16, the fastest, and kept in float32, as accurate as the fused kernels. Chunk size and
the order of the product are those that run fastest here, chosen before the timer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from benchmarks.contestant import fastest
from benchmarks.gpu.contestant import GpuPeer, ScoreEntry
from benchmarks.gpu.problem import GpuProblem

_SIMILARITIES = (1 << 24, 1 << 26, 1 << 28)  # in a chunk

How = tuple[int, bool]  # similarities in a chunk, documents first


def _multiply(left: Tensor, right: Tensor, wide: bool) -> Tensor:
    """left @ right, accumulated in float32 and, where ``wide``, not rounded afterwards."""
    if not wide:
        return left @ right
    if left.device.type == "cpu":  # a dry run: only GPUs have the product of mixed types
        return left.float() @ right.float()
    return torch.mm(left, right, out_dtype=torch.float32)


def _scan(problem: GpuProblem, r_c: int, wide: bool, how: How) -> Tensor:
    """Scores float32 [B, N]. Where fewer tokens count than are stored, a chunk is copied first."""
    size, document_first = how
    batch, tokens, dim = problem.queries.shape
    asked = problem.queries.reshape(-1, dim)
    found = []
    for part in problem.documents.split(max(1, size // (batch * tokens * r_c))):
        documents = part[:, :r_c].reshape(-1, dim)
        if document_first:
            most = _multiply(documents, asked.t(), wide).view(len(part), r_c, -1).amax(1)
            found.append(most.view(len(part), batch, tokens).sum(2, dtype=torch.float32).t())
        else:
            most = _multiply(asked, documents.t(), wide).view(batch * tokens, len(part), r_c).amax(2)
            found.append(most.view(batch, tokens, -1).sum(1, dtype=torch.float32))
    return torch.cat(found, 1)


def _gather(problem: GpuProblem, r_c: int, wide: bool) -> Tensor:
    """Scores float32 [B, C]: each query's candidates are copied together, then multiplied."""
    assert problem.candidates is not None
    found = []
    for query, rows in zip(problem.queries, problem.candidates):
        documents = problem.documents[rows, :r_c].reshape(-1, query.shape[1])
        similar = _multiply(query, documents.t(), wide)
        found.append(similar.view(len(query), len(rows), r_c).amax(2).sum(0, dtype=torch.float32))
    return torch.stack(found)


def _prepared(wide: bool) -> Callable[[GpuProblem, int], ScoreEntry]:
    def prepare(problem: GpuProblem, r_c: int) -> ScoreEntry:
        if problem.candidates is not None:
            return ScoreEntry(problem, lambda: _gather(problem, r_c, wide))
        options = product(_SIMILARITIES, (False, True))
        how = fastest(options, lambda how: _scan(problem, r_c, wide, how).sum().item())  # the sum's value is waited for
        return ScoreEntry(problem, lambda: _scan(problem, r_c, wide, how))

    return prepare


_HOW = "matmul in chunks, amax, sum, topk; candidates and prefixes copied together first"

PEERS = (
    GpuPeer("torch float16", "torch", "float16", f"{_HOW}; similarities rounded to float16", _prepared(False)),
    GpuPeer("torch float16, float32 out", "torch", "float16", f"{_HOW}; similarities in float32", _prepared(True)),
)
