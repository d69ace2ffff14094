"""What a tuning is asked: its arguments, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaindex.checks import integer
from metaindex.planning.choose import as_plan
from metaindex.planning.plan import Coarse, Plan
from metaindex.tuning.outcome import Objective

_OBJECTIVES = ("latency", "throughput", "bytes")


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of ``MetaIndex.tune``, but for queries, budget and filter. ``target`` is its ``recall``; ``batch`` is 1
    where single queries are timed; ``coarse`` is ``None`` where the index's own kind suggests what to try."""

    k: int
    target: float
    objective: Objective
    qrels: Sequence[Mapping[Any, float]] | None
    plans: tuple[Plan, ...]
    coarse: tuple[Coarse, ...] | None
    batch: int
    seed: int

    @classmethod
    def of(cls, k: Any, recall: Any, objective: Any, qrels: Any, plans: Any, coarse: Any, batch: Any, seed: Any) -> Request:
        """Raises TypeError, ValueError, PlanError: an argument is none."""
        if isinstance(recall, bool) or not isinstance(recall, (int, float)) or not 0 < recall <= 1:
            raise ValueError(f"recall: expected a number above 0 and at most 1, got {recall!r}")
        if objective not in _OBJECTIVES:
            raise ValueError(f"objective: expected one of {', '.join(_OBJECTIVES)}, got {objective!r}")
        if isinstance(plans, (str, Plan)):
            raise TypeError("plans: expected a list of plans, got one plan")
        if qrels is not None and not all(isinstance(each, Mapping) for each in qrels):
            raise TypeError("qrels: expected a list with a dict of gains by document id for each query")
        sources = None if coarse is None else tuple(coarse)
        if not all(isinstance(each, Coarse) for each in sources or ()):
            raise TypeError("coarse: expected a list of Coarse stages")
        return cls(
            k=integer("k", k),
            target=float(recall),
            objective=objective,
            qrels=qrels,
            plans=tuple(plan for plan in map(as_plan, plans or ()) if plan is not None),
            coarse=sources,
            batch=integer("batch", batch) if objective == "throughput" else 1,
            seed=integer("seed", seed, least=0),
        )
