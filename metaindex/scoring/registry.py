"""The scorers there are, and which one serves a request.

One predicate, ``Scorer.supports``, answers for everybody: the automatic choice, the error text of an explicit one, the reason
of a skipped test and the table in docs/backends.md.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import BackendError
from metaindex.scoring.request import ScoreRequest


class Verdict(NamedTuple):
    """Yes or no, and why."""

    ok: bool
    why: str


class Scorer(Protocol):
    """Computes MaxSim at a budget, ``sum_{i < r_q} max_{j < r_c} <q_i, d_j>``, on decoded values, accumulated in float32."""

    @property
    def name(self) -> str: ...

    def supports(self, request: ScoreRequest) -> Verdict: ...

    def score(self, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
        """Fill ``scores`` float32 and, when ``request.k`` is given, ``rows`` int64, both of ``request.output_shape``."""


class Choice(NamedTuple):
    """A scorer and what it said."""

    scorer: Scorer
    why: str


class Registry:
    """Scorers in order of preference. An explicit choice works or raises; the automatic one takes the first that can."""

    def __init__(self) -> None:
        self._scorers: dict[str, Scorer] = {}

    def register(self, scorer: Scorer) -> None:
        self._scorers[scorer.name] = scorer

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._scorers)

    def __getitem__(self, name: str) -> Scorer:
        try:
            return self._scorers[name]
        except KeyError:
            raise ValueError(f"scorer: expected 'auto' or one of {', '.join(self._scorers)}, got {name!r}") from None

    def verdicts(self, request: ScoreRequest) -> tuple[tuple[str, Verdict], ...]:
        return tuple((name, scorer.supports(request)) for name, scorer in self._scorers.items())

    def choose(self, request: ScoreRequest, name: str = "auto") -> Choice:
        """The scorer for this request.

        Raises:
            ValueError: no scorer of that name.
            BackendError: the named scorer, or with ``"auto"`` every scorer, says no; the message gives the reasons.
        """
        if name != "auto":
            scorer = self[name]
            verdict = scorer.supports(request)
            if not verdict.ok:
                raise BackendError(f"scorer {name!r} can't serve this {request.operation}: {verdict.why}")
            return Choice(scorer, verdict.why)
        refused = []
        for candidate, scorer in self._scorers.items():  # whom nobody needs is not asked, which may take imports
            verdict = scorer.supports(request)
            if verdict.ok:
                return Choice(scorer, verdict.why)
            refused.append(f"{candidate}: {verdict.why}")
        raise BackendError(f"no scorer can serve this {request.operation} ({'; '.join(refused)})")
