"""What a search would do, before it does it."""

from __future__ import annotations

from dataclasses import dataclass

from metaindex.planning.cost import StageCost
from metaindex.planning.plan import Plan, Step
from metaindex.planning.size import human


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a search to come; ``seconds`` that it should take, ``None`` where the machine was not calibrated. ``codec``:
    that of the vectors it reads, several with + between them; empty where the coarse stage reads its own."""

    step: Step
    cost: StageCost
    scorer: str
    why: str
    seconds: float | None = None
    codec: str = ""


@dataclass(frozen=True)
class PlannedSearch:
    """A plan with the rows, bytes and scorer of each stage, and its time where the machine was calibrated, for a batch of
    ``queries``; ``search(plan=...)`` takes it too."""

    plan: Plan
    queries: int
    stages: tuple[PlannedStage, ...]

    def __str__(self) -> str:
        lines = [f"{self.plan}   {self.queries} {'query' if self.queries == 1 else 'queries'}"]
        for stage in self.stages:
            cost = stage.cost
            time = "" if stage.seconds is None else f"{1e3 * stage.seconds:>10.3f} ms"
            read = f"{human(cost.nbytes):>11} {stage.codec:<8}"
            lines.append(
                f"  {stage.step!s:<18} {cost.rows:>14,} rows {read} {cost.flop / 1e9:>10.3f} GFLOP{time}  "
                f"{stage.scorer} ({stage.why})"
            )
        return "\n".join(lines)
