"""What a tuning is asked: its arguments, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaindex.checks import integer, is_number
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
        if not is_number(recall) or not 0 < recall <= 1:
            raise ValueError(f"recall: expected a number above 0 and at most 1, got {recall!r}")
        if objective not in _OBJECTIVES:
            raise ValueError(f"objective: expected one of {', '.join(_OBJECTIVES)}, got {objective!r}")
        if isinstance(plans, (str, Plan)):
            raise TypeError("plans: expected a list of plans, got one plan")
        return cls(
            k=integer("k", k),
            target=float(recall),
            objective=objective,
            qrels=None if qrels is None else _judgements(qrels),
            plans=tuple(plan for plan in map(as_plan, plans or ()) if plan is not None),
            coarse=None if coarse is None else _sources(coarse),
            batch=integer("batch", batch) if objective == "throughput" else 1,
            seed=integer("seed", seed, least=0),
        )


def _judgements(qrels: Any) -> tuple[Mapping[Any, float], ...]:
    listed = tuple(qrels) if isinstance(qrels, Iterable) and not isinstance(qrels, Mapping) else (None,)
    if not all(isinstance(each, Mapping) for each in listed):
        raise TypeError("qrels: expected a list with a dict of gains by document id for each query")
    for place, gains in enumerate(listed):
        for id_, gain in gains.items():
            if not is_number(gain):
                raise TypeError(f"qrels[{place}]: expected a number as the gain of {id_!r}, got {gain!r}")
            if not 0 <= gain < math.inf:
                raise ValueError(f"qrels[{place}]: expected a finite gain of at least 0 for {id_!r}, got {gain!r}")
    return listed


def _sources(coarse: Any) -> tuple[Coarse, ...]:
    listed = (coarse,) if isinstance(coarse, (str, Coarse)) or not isinstance(coarse, Iterable) else tuple(coarse)
    if listed == (coarse,) or not all(isinstance(each, (str, Coarse)) for each in listed):
        raise TypeError(f"coarse: expected a list of coarse stages, such as ['coarse(nprobe=4)'], got {coarse!r}")
    return tuple(each if isinstance(each, Coarse) else Coarse.parse(each) for each in listed)
