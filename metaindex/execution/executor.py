"""Runs a plan: one request per stage, each stage's best rows the candidates of the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property
from metaindex.coarse.stage import CoarseStage
from metaindex.codecs import Codec
from metaindex.execution import calibration, proposing, windows
from metaindex.planning.cost import StageCost, StageWork, gather_cost, scan_cost
from metaindex.planning.plan import Step
from metaindex.planning.preview import PlannedStage
from metaindex.result import StageStats
from metaindex.scoring.device import DeviceScorer, to_host
from metaindex.scoring.reference import banded_similarities
from metaindex.scoring.registry import Registry
from metaindex.scoring.request import Band, Queries, ScoreRequest
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget

# Half of the working memory that a search may take: the rows and scores that a batch keeps, once per thread and once merged.
_KEPT_BYTES = 128 << 20
_BYTES_PER_HIT = 24
_MERGING = 4

# Below this share of the documents, reading the allowed ones by row is cheaper than scanning past the others.
_SPARSE = 1 / 8


@dataclass(frozen=True, eq=False)
class Search:
    """One batch of queries against one snapshot.

    ``kept``: int64, the rows that a filter lets through, alive and rising; ``None`` for all. ``scorer``: a name, or ``"auto"``.
    ``coarse``: the index's coarse stage, if it has one.
    """

    registry: Registry
    schema: Schema
    snapshot: Snapshot
    queries: Queries
    kept: NDArray[np.int64] | None = None
    scorer: str = "auto"
    num_threads: int = 1
    coarse: CoarseStage | None = None

    @property
    def codec(self) -> Codec:
        """That of the first tokens of documents."""
        return self.schema.bands.codecs[0]

    def of(self, step: Step) -> Search:
        """What a step searches: the levels, or their early copy as an index of its own."""
        return self if step.early is None else self._early

    @cached_property
    def _early(self) -> Search:
        schema = self.schema.early_view
        return replace(
            self, schema=schema, snapshot=self.snapshot.early_view, queries=self.queries.other(schema.bands.codecs[0])
        )

    @property
    def dim(self) -> int:
        return int(self.queries.parts.codes.shape[2])

    @cached_property
    def allowed(self) -> NDArray[np.bool_] | None:
        """Which rows may be answered: alive and let through by the filter; ``None`` for all."""
        if self.kept is None:
            return self.snapshot.alive
        allowed = np.zeros(self.snapshot.rows, dtype=bool)
        allowed[self.kept] = True
        return allowed

    @cached_property
    def available(self) -> int:
        """How many rows may be answered."""
        return len(self.snapshot) if self.kept is None else len(self.kept)

    @cached_property
    def sources(self) -> NDArray[np.int64] | None:
        """The candidates [1, C] of a first stage that reads allowed rows one by one; ``None`` where it scans."""
        if self.available >= _SPARSE * self.snapshot.rows:
            return None
        return (self.snapshot.standing if self.kept is None else self.kept)[None, :]

    def request(self, budget: Budget, candidates: NDArray[np.int64] | None, k: int | None) -> ScoreRequest:
        # Candidates come from allowed rows already, so only a scan needs the mask.
        allow = self.allowed if candidates is None else None
        first, *others = self.schema.bands.below(budget.r_c).codecs
        starts = self.schema.bands.edges
        beyond = tuple(Band(start, each, self.queries.other(each)) for start, each in zip(starts, others))
        asked = (budget, candidates, allow, k, self.num_threads, beyond)
        return ScoreRequest(self.queries, self.snapshot, first, self.dim, *asked)

    def cost(self, budget: Budget, candidates: NDArray[np.int64] | None) -> StageCost:
        """The work of scoring ``candidates`` [B, C] or [1, C], or of a scan, at ``budget``."""
        batch = len(self.queries)
        if candidates is None:
            return scan_cost(self.available, *self._read(self._scanned, budget.r_c), batch, budget, self.dim)
        rows = candidates[candidates >= 0]
        queries_per_row = batch if len(candidates) == 1 else 1

        def gathered(r_c: int) -> int:
            return self._tokens(rows, r_c) * queries_per_row

        return gather_cost(len(rows) * queries_per_row, *self._read(gathered, budget.r_c), budget, self.dim)

    def expected_cost(self, budget: Budget, kept: int) -> StageCost:
        """The work of scoring ``kept`` candidates for each query, taken to be as long as documents are on average."""
        rows = kept * len(self.queries)

        def expected(r_c: int) -> int:
            return round(rows * self.snapshot.stored_tokens(r_c) / max(1, self.snapshot.rows))

        return gather_cost(rows, *self._read(expected, budget.r_c), budget, self.dim)

    def work(self, step: Step, candidates: tuple[int, ...] | None) -> StageWork:
        """What the time of a step depends on, for candidates of that shape, (B, C) or (1, C), or a scan. Candidates are taken
        to be as long as documents are on average."""
        snapshot, batch, r_c = self.snapshot, len(self.queries), step.budget.r_c
        r_q = min(step.budget.r_q, self.queries.parts.codes.shape[1])
        documents = self.available if candidates is None else candidates[0] * candidates[1]
        apart = candidates is not None and candidates[0] > 1
        scans = candidates is None and self.allowed is None
        share = documents / max(1, snapshot.rows)
        stored, footprint = self._read(snapshot.stored_tokens, r_c)
        return StageWork(
            scans=scans,
            queries=batch,
            query_tokens=r_q,
            lanes=r_q if apart else batch * r_q,
            documents=documents,
            comparisons=documents * (1 if apart else batch),
            tokens=round(stored * share),
            pieces=0 if scans else round(snapshot.pieces(r_c) * share),
            dim=self.dim,
            nbytes=round(footprint * share),
            footprint=footprint,
            kept=min(step.keep, self.available),
        )

    def predicted(self, scorer: str, step: Step, candidates: tuple[int, ...] | None) -> float | None:
        """The seconds that a step should take, where the machine was calibrated, vectors are in memory or mapped, and the step
        reads one codec only."""
        single = len(self.schema.bands.below(step.budget.r_c).codecs) == 1
        found = calibration.rates(scorer, self.codec.name) if single and self.snapshot.memory is None else None
        return None if found is None else found.seconds(self.work(step, candidates), self.num_threads)

    def _read(self, tokens: Callable[[int], int], r_c: int) -> tuple[int, int]:
        """How many tokens below ``r_c`` are read, and their bytes, each in its codec; ``tokens`` counts those below any r_c."""
        bands = self.schema.bands.below(r_c)
        counts = [0, *map(tokens, (*bands.edges, r_c))]
        per_token = (each.bytes_per_token(self.dim) for each in bands.codecs)
        return counts[-1], sum((after - before) * nbytes for before, after, nbytes in zip(counts, counts[1:], per_token))

    def _scanned(self, r_c: int) -> int:
        """How many tokens below ``r_c`` a scan reads."""
        if self.allowed is None:
            return self.snapshot.stored_tokens(r_c)
        if self.snapshot.shortest >= r_c:
            return self.available * r_c
        return self._tokens(np.flatnonzero(self.allowed), r_c)

    def _tokens(self, rows: NDArray[np.int64], r_c: int) -> int:
        """How many tokens below ``r_c`` the documents at ``rows`` have."""
        if self.snapshot.shortest >= r_c:
            return len(rows) * r_c
        return int(np.minimum(self.snapshot.lengths_at(rows), r_c).sum(dtype=np.int64))


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


@dataclass(frozen=True, eq=False)
class _Ran:
    """A step that ran, or on a device still runs: what it gives, arrays of numpy or tensors on the device, and what it cost.
    ``seconds`` may be asked for once what it gives was looked at."""

    scores: Any
    rows: Any
    step: Step
    cost: StageCost
    scorer: str
    why: str
    seconds: Callable[[], float]
    predicted: float | None
    topped_up: int = 0

    @property
    def stats(self) -> StageStats:
        cost = self.cost
        return StageStats(str(self.step), cost.rows, cost.nbytes, self.scorer, self.why, self.seconds(), self.predicted)


def run(search: Search, steps: Sequence[Step], k: int, candidates: NDArray[np.int64] | None = None) -> Found:
    """The ``k`` best rows for each query after all ``steps``, of all documents or of ``candidates`` [B, C] or [1, C]."""
    steps, proposer, instead = proposing.settled(search, useful(steps, search.available), k)
    shape = (len(search.queries), k)
    scores, rows = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, -1, dtype=np.int64)
    first = search.sources if candidates is None else candidates
    batches: list[list[StageStats]] = []
    topped_up = 0
    if search.available and (first is None or first.size):
        widest = max(step.keep for step in steps) if proposer is None else proposer.width(search)
        for batch in batches_of(search, widest):
            part = _part(search, batch)
            if proposer is not None:
                ran = [_run_coarse(part, steps[0], proposer)]
            else:
                ran = [_run_step(part, steps[0], first if first is None or len(first) == 1 else first[batch])]
                ran[0] = replace(ran[0], why="; ".join(filter(None, (ran[0].why, instead))))
            for step in steps[1:]:
                ran.append(_run_step(part, step, ran[-1].rows))
            kept, best = to_host(ran[-1].scores), to_host(ran[-1].rows)
            scores[batch, : kept.shape[1]], rows[batch, : best.shape[1]] = kept, best
            batches.append([each.stats for each in ran])
            topped_up += ran[0].topped_up
    return Found(scores, rows, tuple(steps), _totals(batches, topped_up))


def alone(search: Search, step: Step, candidates: NDArray[np.int64] | None = None, needed: int = 0) -> Found:
    """One step by itself: what it keeps, of all documents or of ``candidates``, as ``run`` hands it to the next. What a coarse
    stage proposes, at least ``needed`` where there are as many, has no scores; where it can't serve, the scan that stands in
    for it runs."""
    if step.coarse is not None and search.available and (found := _proposed(search, step, needed)) is not None:
        return found
    return run(search, [step._replace(coarse=None)], min(step.keep, search.available), candidates)


def gather(search: Search, budget: Budget, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores float32 [B, C] of the rows [B, C] or [1, C] at one budget; -inf where a row is -1."""
    request = search.request(budget, rows, None)
    scores = np.empty(request.output_shape, dtype=np.float32)
    windows.score(search.registry.choose(request, search.scorer).scorer, request, scores)
    return scores


def similarities(search: Search, row: int) -> NDArray[np.float64]:
    """Those of the tokens of a search's one query and of the document at ``row``, decoded: [r, t]."""
    length = int(search.queries.lengths[0])
    request = search.request(Budget(length, search.snapshot.levels.tokens), None, None)
    query = [(band.start, band.codec.decode(band.queries.parts)[0, :length]) for band in request.bands]
    return banded_similarities(query, windows.tokens_at(search.snapshot, row))


def preview(search: Search, steps: Sequence[Step]) -> Iterator[PlannedStage]:
    """What ``run`` would do: rows, bytes and scorer of each step."""
    candidates, kept_before = search.sources, 0
    steps, proposer, instead = proposing.settled(search, useful(steps, search.available), steps[-1].keep)
    for number, step in enumerate(steps):
        kept = min(step.keep, search.available)
        if proposer is not None and not number:
            yield PlannedStage(step, proposer.cost(search), proposing.SCORER, proposer.why)
            kept = proposer.width(search)
            candidates, kept_before = np.zeros((len(search.queries), kept), dtype=np.int64), kept
            continue
        view = search.of(step)
        cost = view.expected_cost(step.budget, kept_before) if number else view.cost(step.budget, candidates)
        scorer, why = search.registry.choose(view.request(step.budget, candidates, kept), search.scorer)
        why = "; ".join(filter(None, (why, "" if number else instead)))
        shape = None if candidates is None else candidates.shape
        predicted = view.predicted(scorer.name, step._replace(keep=kept), shape)
        codecs = "+".join(each.name for each in view.schema.bands.below(step.budget.r_c).codecs)
        yield PlannedStage(step, cost, scorer.name, why, predicted, codecs)
        candidates, kept_before = np.zeros((len(search.queries), kept), dtype=np.int64), kept


def useful(steps: Sequence[Step], available: int) -> list[Step]:
    """``steps`` without those that would let every document through, or rank like the step after them."""
    kept = [step for step, later in pairwise(steps) if step.keep < available and step.source != later.source]
    return [*kept, steps[-1]]


def _proposed(search: Search, step: Step, needed: int) -> Found | None:
    _, proposer, _ = proposing.settled(search, [step], needed)
    if proposer is None:
        return None
    ran = [_run_coarse(_part(search, batch), step, proposer) for batch in batches_of(search, proposer.width(search))]
    rows = np.full((len(search.queries), max(each.rows.shape[1] for each in ran)), -1)
    start = 0
    for each in ran:  # queries that were helped make their batch wider
        rows[start : start + len(each.rows), : each.rows.shape[1]] = each.rows
        start += len(each.rows)
    stats = _totals([[each.stats] for each in ran], sum(each.topped_up for each in ran))
    return Found(np.full(rows.shape, -np.inf, np.float32), rows, (step,), stats)


def _run_coarse(search: Search, step: Step, proposer: proposing.Proposer) -> _Ran:
    begun = time.perf_counter()
    rows, cost, topped_up = proposer.proposed(search)
    seconds = time.perf_counter() - begun
    return _Ran(None, rows, step, cost, proposing.SCORER, proposer.why, partial(float, seconds), None, topped_up)


def _run_step(search: Search, step: Step, candidates: Any) -> _Ran:
    search = search.of(step)
    request = search.request(step.budget, candidates, min(step.keep, search.available))
    scorer, why = search.registry.choose(request, search.scorer)
    scores: Any
    rows: Any
    if isinstance(scorer, DeviceScorer) and search.snapshot.memory is None:  # what one step keeps never leaves the device
        started = scorer.mark()
        scores, rows = scorer.run(request)
        seconds = partial(scorer.seconds, started, scorer.mark())
    else:
        begun = time.perf_counter()
        request = replace(request, candidates=None if candidates is None else to_host(candidates))
        scores = np.empty(request.output_shape, dtype=np.float32)
        rows = np.empty(request.output_shape, dtype=np.int64)
        windows.score(scorer, request, scores, rows)
        seconds = partial(float, time.perf_counter() - begun)
    if candidates is None or isinstance(candidates, np.ndarray):
        cost = search.cost(step.budget, candidates)
    else:
        cost = search.expected_cost(step.budget, candidates.shape[1])
    predicted = search.predicted(scorer.name, step, None if candidates is None else tuple(candidates.shape))
    return _Ran(scores, rows, step, cost, scorer.name, why, seconds, predicted)


def batches_of(search: Search, keep: int) -> Iterator[slice]:
    """The queries of a search whose steps keep up to ``keep`` rows each, in batches that working memory has room for."""
    kept = max(1, min(keep, search.available))
    merging = 0 if search.snapshot.memory is None else _MERGING  # what is merged window by window is kept a few times
    size = max(1, _KEPT_BYTES // (kept * _BYTES_PER_HIT * (search.num_threads + 1 + merging)))
    return (slice(start, start + size) for start in range(0, len(search.queries), size))


def _part(search: Search, batch: slice) -> Search:
    if batch.start == 0 and batch.stop >= len(search.queries):
        return search  # with what it has worked out about its filter
    return replace(search, queries=search.queries[batch])


def _totals(batches: Sequence[Sequence[StageStats]], topped_up: int) -> tuple[StageStats, ...]:
    """Every stage over all batches of a search, in whose first a scan helped out so many queries."""
    stages = list(map(_total, zip(*batches)))
    if topped_up:
        queries = "1 query" if topped_up == 1 else f"{topped_up:,} queries"
        stages[0] = replace(stages[0], why=f"{stages[0].why}; {queries} topped up by a scan")
    return tuple(stages)


def _total(stages: Sequence[StageStats]) -> StageStats:
    """One stage over all batches of a search."""
    return replace(
        stages[0],
        rows=sum(stage.rows for stage in stages),
        bytes=sum(stage.bytes for stage in stages),
        seconds=sum(stage.seconds for stage in stages),
        predicted=None if stages[0].predicted is None else sum(stage.predicted or 0.0 for stage in stages),
    )
