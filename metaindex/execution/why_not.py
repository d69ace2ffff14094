"""Why a document is not in the answer: the stage at which a search lost it, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaindex.execution import executor, proposing, windows
from metaindex.execution.executor import Search
from metaindex.planning.plan import Step
from metaindex.types import Budget

Verdict = Literal["found", "lost", "filtered", "removed", "unknown"]


@dataclass(frozen=True)
class Standing:
    """Where a document stood in one stage: ``rank``, from 1, of the ``compared`` documents, of which the stage keeps ``keep``.

    ``last_kept`` is the score of the last one kept; of a coarse stage the least that its index proposed by itself. Of equal
    scores the document that was added first comes first, so a document may be lost by a margin of 0. A coarse stage does not
    rank what it does not propose: there ``rank`` is ``None`` for a document that was lost, and scores are inner products of the
    vectors it goes by. A margin above 0 then says that the index passed it over, which a larger nprobe or efSearch may mend.
    """

    stage: str
    score: float
    rank: int | None
    compared: int
    keep: int
    last_kept: float

    @property
    def kept(self) -> bool:
        return self.rank is not None and self.rank <= self.keep

    @property
    def margin(self) -> float:
        """How far above the last one kept it scores; below 0 where it was lost."""
        return self.score - self.last_kept

    def __str__(self) -> str:
        rank = "     not proposed" if self.rank is None else f"rank {self.rank:>9,} of"
        return (
            f"{self.stage:<16} {rank:<17} {self.compared:>11,}   score {self.score:.4f}, the last one kept "
            f"{self.last_kept:.4f} ({self.margin:+.4f}){'' if self.kept else '   lost'}"
        )


@dataclass(frozen=True, eq=False)
class WhyNot:
    """What became of one document in one search.

    ``verdict``: "found"; "lost" at a stage; "filtered", the filter does not let it through; "removed", by the commit
    ``removed_by``; "unknown", no document of this id was ever added, or what a compaction dropped since.
    ``plan``: the stages that ran, as text. ``stages``: where it stood in each, up to the one that lost it.
    ``exact``: where it stands when all documents that the filter lets through (all there are, where it is filtered) are ranked
    at the last stage's budget; ``None`` for one that is not there. ``instead``: why a scan, or nothing, stood in for the coarse
    stage of the plan, if it did.
    """

    id: Any
    verdict: Verdict
    k: int
    plan: str
    stages: tuple[Standing, ...] = ()
    exact: Standing | None = None
    removed_by: int | None = None
    instead: str = ""

    @property
    def rank(self) -> int | None:
        """Its rank in the answer, from 1; ``None`` where it is not in it."""
        return self.stages[-1].rank if self.verdict == "found" else None

    @property
    def lost_at(self) -> Standing | None:
        """Where it stood in the stage that lost it."""
        return self.stages[-1] if self.verdict == "lost" else None

    def __str__(self) -> str:
        lines = [f"document {self.id!r} {self._verdict()}"]
        lines += [f"  {self.instead}"] if self.instead else []
        lines += [f"  {standing}" for standing in self.stages]
        if self.exact is not None and self.exact.rank is not None:
            told = "" if self.exact.kept else f"; an exact search does not find it among {self.k} either"
            if self.verdict == "filtered":
                told = " without the filter"
            lines.append(
                f"  {'exact':<16} rank {self.exact.rank:>9,} of {self.exact.compared:>11,}   score {self.exact.score:.4f} at "
                f"{self.exact.stage}{told}"
            )
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.verdict == "found":
            return f"was found, rank {self.rank} of {self.k}"
        if self.verdict == "lost":
            return f"was lost at stage {len(self.stages)} of {self.plan}, k = {self.k}"
        if self.verdict == "filtered":
            return "was filtered out: the filter does not let it through"
        if self.verdict == "removed":
            return f"was removed by commit {self.removed_by}"
        return "is unknown: it was never added, or was removed and a compaction has dropped what was known of it"


def why_not(search: Search, steps: Sequence[Step], k: int, id_: Any, row: int) -> WhyNot:
    """What becomes of the document at ``row``, which is alive, in a ``search`` of one query by ``steps``."""
    if search.kept is not None and not np.isin(row, search.kept):
        everything = replace(search, kept=None)
        return WhyNot(id_, "filtered", k, _text(steps), exact=_exact(everything, steps[-1].budget, k, row))
    steps, proposer, instead = proposing.settled(search, executor.useful(steps, search.available), k)
    stages: list[Standing] = []
    candidates: NDArray[np.int64] | None = None
    if proposer is not None:
        standing, candidates = _proposed(search, steps[0], proposer, k, row)
        stages.append(standing)
    for step in steps[len(stages) :] if not stages or stages[0].kept else ():
        standing, candidates = _standing(search, step, candidates, row)
        stages.append(standing)
        if not standing.kept:
            break
    verdict: Verdict = "found" if stages[-1].kept else "lost"
    exact = stages[0] if len(steps) == 1 else _exact(search, steps[-1].budget, k, row)
    exact = replace(exact, stage=str(steps[-1].budget))
    return WhyNot(id_, verdict, k, _text(steps), tuple(stages), exact, instead=instead)


def _proposed(search: Search, step: Step, proposer: proposing.Proposer, k: int, row: int) -> tuple[Standing, NDArray[np.int64]]:
    """Where ``row`` stands among what a coarse stage proposes, and all of that [1, C]. What it is held against is the worst
    that FAISS proposes by itself: a scan that tops up brings worse ones."""
    found = executor.alone(search, step, needed=k).rows[0]
    rows, own = found[found >= 0], found[: step.keep]
    own = own[own >= 0]
    score, *others = proposer.scores(search, np.array([row, *(own if len(own) else rows)])).tolist()
    last_kept = min(others)
    (places,) = np.nonzero(rows == row)
    rank = int(places[0]) + 1 if len(places) else None
    return Standing(str(step), score, rank, search.available, len(rows), last_kept), rows[None, :]


def _standing(search: Search, step: Step, candidates: NDArray[np.int64] | None, row: int) -> tuple[Standing, NDArray[np.int64]]:
    """Where ``row`` stands in one stage, and what the stage keeps [1, keep]."""
    found = executor.alone(search, step, candidates)
    kept = found.rows >= 0
    compared = search.available if candidates is None else candidates.shape[1]
    last_kept = float(found.scores[kept][-1])
    (places,) = np.nonzero(found.rows[0] == row)
    if len(places):
        score, rank = float(found.scores[0, places[0]]), int(places[0]) + 1
    else:
        score, rank = _ranked(search.of(step), step.budget, candidates, row)
    return Standing(str(step), score, rank, compared, step.keep, last_kept), found.rows[kept][None, :]


def _exact(search: Search, budget: Budget, k: int, row: int) -> Standing:
    return replace(_standing(search, Step(budget, k), None, row)[0], stage=str(budget))


def _ranked(search: Search, budget: Budget, candidates: NDArray[np.int64] | None, row: int) -> tuple[float, int]:
    """The score of ``row`` and its rank among ``candidates`` [1, C] or all documents; 4 bytes for each of them."""
    candidates = search.sources if candidates is None else candidates
    request = search.request(budget, candidates, None)  # as the stage asks, so that scores are the same bits
    scores = np.empty(request.output_shape, np.float32)
    windows.score(search.registry.choose(request, search.scorer).scorer, request, scores)
    rows = np.arange(search.snapshot.rows) if candidates is None else candidates[0]
    score = scores[0, rows == row][0]
    equal = rows[scores[0] == score]
    order = search.snapshot.sequence_at(equal)
    before = np.count_nonzero(order < search.snapshot.sequence_at(np.array([row])))
    return float(score), int(np.count_nonzero(scores[0] > score) + before) + 1


def _text(steps: Sequence[Step]) -> str:
    *climbing, last = steps
    return " ".join([*map(str, climbing), str(last.budget)])
