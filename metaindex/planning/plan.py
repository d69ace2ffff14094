"""Plans: how a search climbs from cheap comparisons of many documents to full ones of a few.

A plan is a value: parsed from text, printed as the same text, compared with ``==``. It holds numbers; the executor runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from metaindex.checks import integer
from metaindex.errors import PlanError
from metaindex.types import Budget

_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
GRAMMAR = (
    "stages from left to right, each (r_q,r_c)>keep with * for all tokens of a side, the last without >keep; the first may be "
    "coarse>keep or coarse(name=number)>keep, and (r_q,r_c):int8>keep reads an early copy in int8"
)


@dataclass(frozen=True)
class Exact:
    """Compare the first ``r_q`` query tokens with the first ``r_c`` document tokens; ``None`` is all of that side.

    ``early``: the codec of the early copy to compare by; ``None`` goes by the levels themselves.
    """

    r_q: int | None = None
    r_c: int | None = None
    early: str | None = None

    def __post_init__(self) -> None:
        for side, tokens in (("r_q", self.r_q), ("r_c", self.r_c)):
            if tokens is not None:
                integer(f"budget {side}", tokens)

    def __str__(self) -> str:
        copy = "" if self.early is None else f":{self.early}"
        return f"({'*' if self.r_q is None else self.r_q},{'*' if self.r_c is None else self.r_c}){copy}"


@dataclass(frozen=True)
class Coarse:
    """Ask the coarse stage, with its search parameters by name: FAISS's, such as ``nprobe``, and ``r_q``, how many query tokens
    it goes by; by default as many as the last stage."""

    parameters: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, (tuple, list)) or not all(
            isinstance(each, (tuple, list)) and len(each) == 2 and isinstance(each[0], str) and _NAME.fullmatch(each[0])
            for each in self.parameters
        ):
            raise TypeError(f"coarse: expected pairs of name and number, such as (('nprobe', 16),), got {self.parameters!r}")
        try:
            listed = tuple((name, integer(f"coarse {name}", number, least=0)) for name, number in self.parameters)
        except ValueError as error:
            raise PlanError(f"plan: {error}") from None
        object.__setattr__(self, "parameters", listed)
        names = [name for name, _ in listed]
        if len(set(names)) < len(names):
            raise PlanError(f"plan: {self} names a parameter twice")

    @classmethod
    def parse(cls, text: str) -> Coarse:
        """The coarse stage that ``text``, such as ``coarse(nprobe=16)``, describes. Raises PlanError."""
        match _stages(text):
            case [Stage(Coarse() as source, None)]:
                return source
        raise PlanError(f"plan: expected a coarse stage such as coarse(nprobe=16), got {text!r}")

    @property
    def r_q(self) -> int | None:
        return dict(self.parameters).get("r_q")

    @property
    def settings(self) -> dict[str, int]:
        """The parameters that are FAISS's."""
        return {name: value for name, value in self.parameters if name != "r_q"}

    def __str__(self) -> str:
        inside = ",".join(f"{name}={value}" for name, value in self.parameters)
        return f"coarse({inside})" if inside else "coarse"


@dataclass(frozen=True)
class Stage:
    """A source of scores and how many of the best documents go on; the last stage keeps the search's ``k``."""

    source: Exact | Coarse
    keep: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, (Exact, Coarse)):
            raise TypeError(f"stage: expected Exact or Coarse, got {self.source!r}; Plan.parse takes text")
        if self.keep is not None:
            integer("keep", self.keep)

    def __str__(self) -> str:
        return str(self.source) if self.keep is None else f"{self.source}>{self.keep}"


class Step(NamedTuple):
    """A stage with its numbers filled in: compare at ``budget``, keep the best ``keep``.

    Of a ``coarse`` stage the budget is what stands in for it where it can't serve: its query tokens, and those of level 0.
    ``early``: the codec of the copy that is compared by, if it is one.
    """

    budget: Budget
    keep: int
    coarse: Coarse | None = None
    early: str | None = None

    def __str__(self) -> str:
        return f"{self.source}>{self.keep}"

    @property
    def source(self) -> str:
        """What is compared, as a plan writes it."""
        return str(self.coarse or self.budget) + ("" if self.early is None else f":{self.early}")


@dataclass(frozen=True)
class Plan:
    """One or more stages: rows may not grow and budgets may not shrink from one to the next.

    ``Plan.parse("(1,1)>4000 (4,8)>400 (16,64)")`` compares one token with one token of every document, keeps the best 4,000,
    compares those at (4,8), and ranks the best 400 of them at (16,64).

    Raises:
        PlanError: no stage; a rising keep; a shrinking budget; a coarse stage that is not first or stands alone; a last stage
            that ranks by an early copy.
    """

    stages: tuple[Stage, ...]

    def __init__(self, stages: Iterable[Stage]) -> None:
        given: Any = stages
        listed = None if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
        if listed is None or not all(isinstance(each, Stage) for each in listed):
            raise TypeError(f"plan: expected stages, got {given if listed is None else listed!r}; Plan.parse takes text")
        object.__setattr__(self, "stages", listed)
        self._check()

    def _check(self) -> None:
        if not self.stages:
            raise PlanError(f"plan: expected at least one stage: {GRAMMAR}")
        *climbing, last = self.stages
        if last.keep is not None or any(stage.keep is None for stage in climbing):
            raise PlanError(f"plan {self}: every stage but the last needs >keep, and the last keeps the search's k")
        if isinstance(last.source, Coarse) or any(isinstance(stage.source, Coarse) for stage in climbing[1:]):
            raise PlanError(f"plan {self}: coarse can only be the first of several stages")
        if isinstance(last.source, Exact) and last.source.early is not None:
            raise PlanError(f"plan {self}: the last stage ranks by the vectors as they are; leave out :{last.source.early}")
        for before, after in pairwise(climbing):
            if (after.keep or 0) > (before.keep or 0):
                raise PlanError(f"plan {self}: rows may not grow, {before.keep} to {after.keep}")
        exact = [stage.source for stage in self.stages if isinstance(stage.source, Exact)]
        for lower, higher in pairwise(exact):
            if _shrinks(lower.r_q, higher.r_q) or _shrinks(lower.r_c, higher.r_c):
                raise PlanError(f"plan {self}: budgets may not shrink, {lower} to {higher}")

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan that ``text`` describes; see the grammar in ``GRAMMAR``.

        Raises:
            PlanError: ``text`` does not follow the grammar; the message shows where.
        """
        if not isinstance(text, str):
            raise TypeError(f"plan: expected text or a Plan, got {type(text).__name__}")
        try:
            return cls(_stages(text))
        except PlanError:
            raise
        except ValueError as error:
            raise PlanError(f"plan {text!r}: {error}") from None

    def __str__(self) -> str:
        return " ".join(map(str, self.stages))

    def __repr__(self) -> str:
        return f"Plan.parse({str(self)!r})"

    @property
    def reach(self) -> Budget:
        """The largest number of tokens of each side that a stage names; 0 where all stages say ``*``."""
        exact = [stage.source for stage in self.stages if isinstance(stage.source, Exact)]
        asked = 0 if self.coarse is None else self.coarse.r_q or 0
        return Budget(max(asked, *(source.r_q or 0 for source in exact)), max(source.r_c or 0 for source in exact))

    @property
    def most_hits(self) -> float:
        """The most results that this plan can rank: what its stages keep; infinity where one stage ranks everything."""
        return min((stage.keep for stage in self.stages if stage.keep is not None), default=float("inf"))

    @property
    def coarse(self) -> Coarse | None:
        """The coarse stage that this plan begins with, if it does."""
        source = self.stages[0].source
        return source if isinstance(source, Coarse) else None

    def steps(
        self, query_tokens: int, doc_tokens: int, k: int, coarse_tokens: int | None = None, early: str | None = None
    ) -> tuple[Step, ...]:
        """The stages for queries of ``query_tokens``, documents of ``doc_tokens`` and ``k`` results.

        ``coarse_tokens``: how many document tokens are compared where something has to stand in for the coarse stage; ``None``
        where there is no such stage. ``early``: the codec of the early copy that there is.

        Raises:
            PlanError: a budget is larger than its side, a stage keeps fewer than ``k``, or it reads a copy that there is not.
        """
        steps = []
        for stage in self.stages:
            if isinstance(stage.source, Coarse):
                steps.append(self._coarse_step(stage.source, stage.keep or k, query_tokens, doc_tokens, k, coarse_tokens))
                continue
            budget = Budget(stage.source.r_q or query_tokens, stage.source.r_c or doc_tokens)
            if budget.r_q > query_tokens or budget.r_c > doc_tokens:
                sides = ((budget.r_q, query_tokens, "query"), (budget.r_c, doc_tokens, "document"))
                there = " and ".join(f"{tokens} {side}" for asked, tokens, side in sides if asked > tokens)
                raise PlanError(f"plan {self}: {stage.source} asks for more than the {there} tokens there are; * is all")
            if stage.keep is not None and stage.keep < k:
                raise PlanError(f"plan {self}: a stage keeps {stage.keep}, fewer than k = {k}")
            if stage.source.early not in (None, early):
                has = "no early copy; make one with MetaIndex(early=...)" if early is None else f"an early copy in {early}"
                raise PlanError(f"plan {self}: {stage.source} reads a copy, and this index has {has}")
            steps.append(Step(budget, stage.keep or k, early=stage.source.early))
        for lower, higher in pairwise(step for step in steps if step.coarse is None):
            if higher.budget.r_q < lower.budget.r_q or higher.budget.r_c < lower.budget.r_c:
                raise PlanError(f"plan {self}: budgets may not shrink, {lower.budget} to {higher.budget}")
        return tuple(steps)

    def _coarse_step(
        self, source: Coarse, keep: int, query_tokens: int, doc_tokens: int, k: int, coarse_tokens: int | None
    ) -> Step:
        if coarse_tokens is None:
            raise PlanError(f"plan {self}: this index has no coarse stage; begin with a small budget such as (1,1)")
        if keep < k:
            raise PlanError(f"plan {self}: a stage keeps {keep}, fewer than k = {k}")
        last = self.stages[-1].source
        r_q = source.r_q
        if r_q is None:
            r_q = min(query_tokens, (last.r_q if isinstance(last, Exact) else None) or query_tokens)
        if not 1 <= r_q <= query_tokens:
            raise PlanError(f"plan {self}: expected r_q in 1..{query_tokens}, the tokens of a query, got {r_q}")
        r_c = min(
            coarse_tokens, next(stage.source.r_c or doc_tokens for stage in self.stages if isinstance(stage.source, Exact))
        )
        return Step(Budget(r_q, r_c), keep, source)


_TOKEN = re.compile(
    r"\s*(?:\(\s*(?P<r_q>\*|\d+)\s*,\s*(?P<r_c>\*|\d+)\s*\)(?:\s*:\s*(?P<early>[a-z]\w*))?|coarse(?:\(\s*(?P<parameters>[^)]*)\))?)"
    r"(?:\s*>\s*(?P<keep>\d+))?(?=\s|$)"
)
_PARAMETER = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(\d+)\s*")


def _stages(text: str) -> list[Stage]:
    stages, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise PlanError(f"plan: can't read {text[at:].strip()!r} in {text!r}; expected {GRAMMAR}")
        keep = None if match["keep"] is None else int(match["keep"])
        source: Exact | Coarse
        if match["r_q"] is None:
            source = Coarse(_parameters(match["parameters"] or "", text))
        else:
            r_q, r_c = (None if side == "*" else int(side) for side in (match["r_q"], match["r_c"]))
            source = Exact(r_q, r_c, match["early"])
        stages.append(Stage(source, keep))
        at = match.end()
    return stages


def _parameters(text: str, plan: str) -> tuple[tuple[str, int], ...]:
    parameters = []
    for part in filter(None, text.split(",")):
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise PlanError(f"plan: can't read the coarse parameter {part.strip()!r} in {plan!r}; expected name=number")
        parameters.append((match[1], int(match[2])))
    return tuple(parameters)


def _shrinks(lower: int | None, higher: int | None) -> bool:
    """Whether a side shrinks whatever ``*`` turns out to be; ``steps`` compares again once it is a number."""
    return lower is not None and higher is not None and higher < lower
