"""Which plan a search's arguments mean."""

from __future__ import annotations

from typing import Any

from metaindex.errors import PlanError
from metaindex.planning.plan import Coarse, Exact, Plan, Stage
from metaindex.types import Budget, Levels


def as_plan(plan: Any) -> Plan | None:
    """A ``plan`` argument as a plan: one itself, what holds one, a planned search or a tuning, or text. Raises PlanError where
    text does not parse, TypeError where it is none."""
    plan = getattr(plan, "plan", plan)
    return plan if plan is None or isinstance(plan, Plan) else Plan.parse(plan)


LEAST_CANDIDATES, CANDIDATES_PER_HIT = 1000, 20


def default_candidates(k: int) -> int:
    """How many documents a coarse stage proposes where nobody says."""
    return max(LEAST_CANDIDATES, CANDIDATES_PER_HIT * k)


def chosen_plan(
    plan: Plan | None, budget: Budget | None, candidates: int | None, levels: Levels, *, coarse: bool = False
) -> Plan:
    """The plan to run: the given one; or every document at ``budget``; or, with ``candidates``, a stage that proposes so many
    and ``budget`` for those: the ``coarse`` one where there is one, else a scan of level 0 with all its query tokens.

    Raises:
        PlanError: a plan comes beside a budget or candidates.
    """
    if plan is None:
        full = Exact() if budget is None else Exact(*budget)
        if candidates is None:
            return Plan([Stage(full)])
        if coarse:
            return Plan([Stage(Coarse(), candidates), Stage(full)])
        return Plan([Stage(Exact(full.r_q, min(levels.stop(0), full.r_c or levels.stop(0))), candidates), Stage(full)])
    if budget is not None or candidates is not None:
        raise PlanError("plan: a plan sets budgets and candidates itself; give it alone")
    return plan
