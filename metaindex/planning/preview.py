"""What a search would do, before it does it."""

from __future__ import annotations

from dataclasses import dataclass

from metaindex.planning.cost import StageCost
from metaindex.planning.plan import Plan, Step
from metaindex.planning.size import human


@dataclass(frozen=True)
class PlannedStage:
    step: Step
    cost: StageCost
    scorer: str
    why: str


@dataclass(frozen=True)
class PlannedSearch:
    """A plan with the rows, bytes and scorer of each stage, for a batch of ``queries``; ``search(plan=...)`` takes it too."""

    plan: Plan
    queries: int
    stages: tuple[PlannedStage, ...]

    def __str__(self) -> str:
        lines = [f"{self.plan}   {self.queries} {'query' if self.queries == 1 else 'queries'}"]
        for stage in self.stages:
            cost = stage.cost
            lines.append(
                f"  {stage.step!s:<18} {cost.rows:>14,} rows {human(cost.nbytes):>11} {cost.flop / 1e9:>10.3f} GFLOP  "
                f"{stage.scorer} ({stage.why})"
            )
        return "\n".join(lines)
