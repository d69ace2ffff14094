"""What contestants on a GPU are given, made on the device, and the float64 oracle that their answers are held to.

Documents are seeded unit vectors. A few of them, the first and the last among them, hold what a query asks for, so that a
search that misses rows, tokens or high addresses misses one of the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.cases import GpuCase
from benchmarks.problem import Errors

_PLANTED = 16  # documents that are near a query
_LIKENESS = 0.8  # the cosine of their tokens with the query's
_SAMPLED = 128  # documents that the oracle scores besides the returned ones
_CHECKED = 4  # queries of a batch that are checked
_CHUNK = 1 << 26  # numbers made or compared at once

Tokens = Callable[[Tensor], Tensor]  # rows [n] -> their tokens [n, t, d], of any float


class Answer(NamedTuple):
    """``scores`` float32 [B, n]; ``rows`` int64 [B, n], or ``None`` where every document or candidate has its score."""

    scores: Tensor
    rows: Tensor | None


@dataclass(frozen=True, eq=False)
class GpuProblem:
    """``documents`` float16 [N, T, d], ``queries`` float16 [B, R, d]; ``candidates`` int64 [B, C], rows without repeats, or
    ``None``. ``sample`` int64 [S]: rows to check, or places in ``candidates``."""

    case: GpuCase
    documents: Tensor
    queries: Tensor
    candidates: Tensor | None
    sample: Tensor


def make(case: GpuCase, seed: int, device: torch.device) -> GpuProblem:
    random = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    documents = torch.empty((case.documents, case.doc_tokens, case.dim), dtype=torch.float16, device=device)
    for part in documents.split(max(1, _CHUNK // (case.doc_tokens * case.dim))):
        part.copy_(_unit(normal(*part.shape)))
    queries = _unit(normal(case.queries, case.query_tokens, case.dim)).half()
    rows = torch.linspace(0, case.documents - 1, min(_PLANTED, case.documents), device=device).long()
    asked = queries[torch.arange(len(rows), device=device) % case.queries].float()
    wanted = asked[:, torch.arange(case.doc_tokens, device=device) % case.query_tokens]
    documents[rows] = _unit(_LIKENESS * wanted + (1 - _LIKENESS**2) ** 0.5 * _unit(normal(*wanted.shape))).half()
    width, candidates = case.documents, None
    if case.candidates is not None:
        width = case.candidates
        drawn = [torch.randperm(case.documents, generator=random, device=device)[:width] for _ in range(case.queries)]
        candidates = torch.stack(drawn)
    sample = torch.randint(0, width, (_SAMPLED,), generator=random, device=device)
    sample = torch.cat([sample, torch.tensor([0, width - 1], device=device), rows if candidates is None else rows[:0]]).unique()
    return GpuProblem(case, documents, queries, candidates, sample)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def exact(query: Tensor, tokens: Tokens, rows: Tensor) -> Tensor:
    """float64 scores [n] of one query [R, d] and the documents at ``rows`` [n]."""
    found = []
    size = max(1, _CHUNK // max(1, tokens(rows[:1]).numel()))
    for part in rows.split(size):
        documents = tokens(part).double()
        similar = documents.flatten(0, 1) @ query.double().t()
        found.append(similar.view(len(part), -1, len(query)).amax(dim=1).sum(dim=1))
    return torch.cat(found)


def errors(
    problem: GpuProblem, answer: Answer, r_c: int, decoded: tuple[Tensor, Tokens] | None = None, *, k: int | None = None
) -> Errors:
    """Check an answer against the oracle, on the vectors as given and, with ``decoded`` queries [B, R, d] and documents, on
    what a codec keeps. Errors are relative to a query's largest checked score. The recall counts those documents of the
    sample that belong among the returned ones, by more than the error.

    Raises:
        ValueError: the answer has not ``k`` documents.
    """
    width = len(problem.documents) if problem.candidates is None else problem.candidates.shape[1]
    expected = width if answer.rows is None else min(k or 0, width)
    if answer.scores.shape[1] != expected:
        raise ValueError(f"{answer.scores.shape[1]} documents were returned, not {expected}")
    batch = len(problem.queries)
    checked = torch.linspace(0, batch - 1, min(_CHECKED, batch)).long().unique().tolist()
    found = [_one(problem, answer, r_c, b, decoded) for b in checked]
    recalls = [each.recall for each in found]
    worst = None if decoded is None else max(each.decoded or 0.0 for each in found)
    return Errors(max(each.original for each in found), worst, sum(recalls) / len(recalls))


def _one(problem: GpuProblem, answer: Answer, r_c: int, b: int, decoded: tuple[Tensor, Tokens] | None) -> Errors:
    """The errors of query ``b``. Scores that are no numbers, and a document that is returned twice, are as wrong as can be."""

    def given(rows: Tensor) -> Tensor:
        return problem.documents[rows, :r_c]

    sample = problem.sample if problem.candidates is None else problem.candidates[b, problem.sample]
    scores = answer.scores[b].double()
    rows, compared = (sample, scores[problem.sample]) if answer.rows is None else (answer.rows[b], scores)
    if not torch.isfinite(scores).all() or (answer.rows is not None and len(rows.unique()) < len(rows)):
        return Errors(float("inf"), None if decoded is None else float("inf"), 0.0)
    truth = exact(problem.queries[b], given, rows)
    original = _relative(compared, truth)
    kept = None if decoded is None else _relative(compared, exact(decoded[0][b], decoded[1], rows))
    if answer.rows is None:
        return Errors(original, kept, 1.0)
    margin = 2 * original * truth.abs().max()
    belongs = sample[exact(problem.queries[b], given, sample) > compared.min() + margin]
    there = int(torch.isin(belongs, rows).sum())
    return Errors(original, kept, there / len(belongs) if len(belongs) else 1.0)


def _relative(scores: Tensor, truth: Tensor) -> float:
    return float((scores - truth).abs().max() / truth.abs().max().clamp(min=1e-9))
