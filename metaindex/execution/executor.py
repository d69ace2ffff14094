"""Runs a plan: one request per stage, each stage's best rows the candidates of the next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec
from metaindex.planning.cost import StageCost, gather_cost, scan_cost
from metaindex.planning.plan import Step
from metaindex.result import StageStats
from metaindex.scoring.registry import Registry
from metaindex.scoring.request import Queries, ScoreRequest
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget

# Half of the working memory that a search may take: the rows and scores that a batch keeps, once per thread and once merged.
_KEPT_BYTES = 128 << 20
_BYTES_PER_HIT = 24

# Below this share of the documents, reading the allowed ones by row is cheaper than scanning past the others.
_SPARSE = 1 / 8


@dataclass(frozen=True, eq=False)
class Search:
    """One batch of queries against one snapshot.

    ``allow``: bool [rows], which documents a filter lets through; ``None`` for all. ``scorer``: a name, or ``"auto"``.
    """

    registry: Registry
    snapshot: Snapshot
    codec: Codec
    dim: int
    queries: Queries
    allow: NDArray[np.bool_] | None = None
    scorer: str = "auto"
    num_threads: int = 1

    @cached_property
    def allowed(self) -> NDArray[np.bool_] | None:
        """Which rows may be answered: alive and let through by the filter; ``None`` for all."""
        alive = self.snapshot.alive
        if self.allow is None or alive is None:
            return alive if self.allow is None else self.allow
        return alive & self.allow

    @cached_property
    def available(self) -> int:
        """How many rows may be answered."""
        return self.snapshot.rows if self.allowed is None else int(np.count_nonzero(self.allowed))

    @cached_property
    def sources(self) -> NDArray[np.int64] | None:
        """The candidates [1, C] of a first stage that reads allowed rows one by one; ``None`` where it scans."""
        if self.allowed is None or self.available >= _SPARSE * self.snapshot.rows:
            return None
        return np.flatnonzero(self.allowed)[None, :]

    def request(self, budget: Budget, candidates: NDArray[np.int64] | None, k: int | None) -> ScoreRequest:
        # Candidates come from allowed rows already, so only a scan needs the mask.
        allow = self.allowed if candidates is None else None
        return ScoreRequest(self.queries, self.snapshot, self.codec, self.dim, budget, candidates, allow, k, self.num_threads)

    def cost(self, budget: Budget, candidates: NDArray[np.int64] | None) -> StageCost:
        """The work of scoring ``candidates`` [B, C] or [1, C], or of a scan, at ``budget``."""
        snapshot, per_token, batch = self.snapshot, self.codec.bytes_per_token(self.dim), len(self.queries)
        if candidates is None:
            return scan_cost(snapshot.rows, snapshot.stored_tokens(budget.r_c), batch, budget, self.dim, per_token)
        rows = candidates[candidates >= 0]
        if snapshot.shortest >= budget.r_c:
            tokens = len(rows) * budget.r_c
        else:
            tokens = int(np.minimum(snapshot.lengths_at(rows), budget.r_c).sum(dtype=np.int64))
        queries_per_row = batch if len(candidates) == 1 else 1
        return gather_cost(len(rows) * queries_per_row, tokens * queries_per_row, budget, self.dim, per_token)


@dataclass(frozen=True, eq=False)
class Found:
    """Scores float32 [B, k] and rows int64 [B, k] (-inf and -1 where missing), which steps ran and what they cost."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    steps: tuple[Step, ...]
    stats: tuple[StageStats, ...]

    @property
    def exact(self) -> bool:
        """Whether the last step saw every document: steps that drop none do not run."""
        return len(self.steps) == 1


def run(search: Search, steps: Sequence[Step], k: int) -> Found:
    """The ``k`` best rows for each query after all ``steps``."""
    steps = useful(steps, search.available)
    scores, rows = _no_hits(search, k)
    batches: list[list[StageStats]] = []
    if search.available:
        for batch in _batches(search, steps):
            part = replace(search, queries=search.queries[batch])
            kept, best, stage = _run_step(part, steps[0], search.sources)
            stats = [stage]
            for step in steps[1:]:
                kept, best, stage = _run_step(part, step, best)
                stats.append(stage)
            scores[batch, : kept.shape[1]], rows[batch, : best.shape[1]] = kept, best
            batches.append(stats)
    return Found(scores, rows, tuple(steps), tuple(map(_total, zip(*batches))))


def gather(search: Search, budget: Budget, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores float32 [B, C] of the rows [B, C] or [1, C] at one budget; -inf where a row is -1."""
    request = search.request(budget, rows, None)
    scores = np.empty(request.output_shape, dtype=np.float32)
    search.registry.choose(request, search.scorer).scorer.score(request, scores)
    return scores


def rank(search: Search, budget: Budget, rows: NDArray[np.int64], k: int) -> Found:
    """The ``k`` best of the rows [B, C] or [1, C] at one budget."""
    step = Step(budget, k)
    scores, best = _no_hits(search, k)
    if not rows.size or not search.available:
        return Found(scores, best, (step,), ())
    found, chosen, stats = _run_step(search, step, rows)
    scores[:, : chosen.shape[1]], best[:, : chosen.shape[1]] = found, chosen
    return Found(scores, best, (step,), (stats,))


def _run_step(
    search: Search, step: Step, candidates: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], StageStats]:
    started = time.perf_counter()
    request = search.request(step.budget, candidates, min(step.keep, search.available))
    scorer, verdicts = search.registry.choose(request, search.scorer)
    scores = np.empty(request.output_shape, dtype=np.float32)
    rows = np.empty(request.output_shape, dtype=np.int64)
    scorer.score(request, scores, rows)
    seconds = time.perf_counter() - started
    work = search.cost(step.budget, candidates)
    stats = StageStats(str(step), work.rows, work.nbytes, scorer.name, dict(verdicts)[scorer.name].why, seconds)
    return scores, rows, stats


def _no_hits(search: Search, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    shape = (len(search.queries), k)
    return np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int64)


def useful(steps: Sequence[Step], available: int) -> list[Step]:
    """``steps`` without those that would let every document through."""
    *climbing, last = steps
    return [*(step for step in climbing if step.keep < available), last]


def _batches(search: Search, steps: Sequence[Step]) -> Iterator[slice]:
    kept = max(min(step.keep, search.available) for step in steps)
    size = max(1, _KEPT_BYTES // (kept * _BYTES_PER_HIT * (search.num_threads + 1)))
    return (slice(start, start + size) for start in range(0, len(search.queries), size))


def _total(stages: Sequence[StageStats]) -> StageStats:
    """One stage over all batches of a search."""
    return replace(
        stages[0],
        rows=sum(stage.rows for stage in stages),
        bytes=sum(stage.bytes for stage in stages),
        seconds=sum(stage.seconds for stage in stages),
    )
