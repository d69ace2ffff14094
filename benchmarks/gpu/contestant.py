"""What takes part in a race on a GPU: a name, how it keeps documents, and calls to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.problem import Answer, GpuProblem, Tokens

Scores = Callable[[], Tensor]


class Entry(Protocol):
    """A contestant that has packed its documents. Neither call waits for the device where its library does not."""

    def scores(self) -> Answer:
        """Scores [B, N] of all documents, or [B, C] of each query's candidates."""

    def best(self, k: int) -> Answer:
        """The k best and their rows."""

    @property
    def decoded(self) -> tuple[Tensor, Tokens] | None:
        """Queries [B, R, d] and documents as its codec keeps them, where that is known."""


class GpuContestant(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str:
        """The distribution whose version stands beside the result."""

    @property
    def codec(self) -> str:
        """How the documents' numbers are kept: what bytes and which arithmetic its floor is made of."""

    @property
    def ours(self) -> bool: ...

    @property
    def how(self) -> str:
        """The entry point used, and what it costs that others don't pay, in a line."""

    def why_not(self, case: GpuCase) -> str | None:
        """Why it stays away from a case; ``None`` where it takes part. An exception it would meet is no reason."""

    def keeps(self, case: GpuCase) -> Mapping[str, int]:
        """Bytes it needs on the device besides the documents as given, by what they are: equal names are shared."""

    def prepare(self, problem: GpuProblem, r_c: int) -> Entry:
        """Pack what it needs, which is not timed; documents are compared by their first ``r_c`` tokens."""


@dataclass(frozen=True, eq=False)
class ScoreEntry:
    """A peer that gives all scores, whose top-k is torch's, unless it has its own."""

    problem: GpuProblem
    all_scores: Scores
    own_best: Callable[[int], tuple[Tensor, Tensor]] | None = None
    decoded: None = None

    def scores(self) -> Answer:
        return Answer(self.all_scores(), None)

    def best(self, k: int) -> Answer:
        if self.own_best is not None:
            return Answer(*self.own_best(k))
        scores = self.all_scores()
        found, places = scores.topk(min(k, scores.shape[1]), dim=1)
        candidates = self.problem.candidates
        return Answer(found, places if candidates is None else candidates.gather(1, places))


def _nothing(case: GpuCase) -> Mapping[str, int]:
    return {}


def _always(case: GpuCase) -> str | None:
    return None


@dataclass(frozen=True)
class GpuPeer:
    """Another library, as a value."""

    name: str
    package: str
    codec: str
    how: str
    prepare: Callable[[GpuProblem, int], Entry]
    why_not: Callable[[GpuCase], str | None] = _always
    keeps: Callable[[GpuCase], Mapping[str, int]] = _nothing
    ours: bool = False


def in_parts(make: Callable[[Tensor], tuple[Tensor, ...]], documents: Tensor, size: int = 1 << 27) -> tuple[Tensor, ...]:
    """What ``make`` packs of documents [N, T, d], made of some of them at a time: its temporaries may be large."""
    whole: list[Tensor] = []
    first = 0
    for part in documents.split(max(1, size // max(1, documents[0].numel()))):
        made = make(part)
        if not whole:
            whole = [torch.empty((len(documents), *each.shape[1:]), dtype=each.dtype, device=each.device) for each in made]
        for target, each in zip(whole, made):
            target[first : first + len(part)] = each
        first += len(part)
    return tuple(whole)
