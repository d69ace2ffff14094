"""Searches prepared: a caller's queries, budget, plan and filter become a search on the snapshot that stands, and its steps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import door
from metaindex.checks import integer
from metaindex.coarse.stage import CoarseStage
from metaindex.errors import PlanError, ShapeError, UnknownIdError
from metaindex.execution import executor
from metaindex.execution.why_not import WhyNot, why_not
from metaindex.planning.choose import as_plan, chosen_plan, default_candidates
from metaindex.planning.plan import Plan, Step
from metaindex.result import SearchResult
from metaindex.scoring.registry import Registry
from metaindex.scoring.request import Queries
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.store import Store
from metaindex.storage.where import parsed
from metaindex.types import Budget


class Searches:
    """Prepares the searches of one index."""

    def __init__(self, store: Store, scorers: Registry, num_threads: int, coarse: CoarseStage | None = None) -> None:
        self._store, self._scorers, self._threads, self._coarse = store, scorers, num_threads, coarse
        self._warned = False

    def prepare(self, queries: Any, scorer: str, filter: Any = None) -> executor.Search:
        snapshot = self._store.snapshot
        schema = self._store.schema  # read second: a first add in between fills it in before the snapshot shows documents
        shape = ("B", "R", "d")
        expected = door.Expected("queries", shape, schema.query_tokens, schema.dim, schema.strictest, schema.normalize)
        tokens = door.queries(queries, expected)
        encoded = Queries.of(tokens.values, tokens.lengths, schema)
        rows = None if filter is None else self.kept(snapshot, schema, filter)
        return executor.Search(self._scorers, schema, snapshot, encoded, rows, scorer, self._threads, self._coarse)

    def prepare_empty(
        self, queries: int, query_tokens: int | None, budget: Any, plan: Plan | None, scorer: str, filter: Any = None
    ) -> executor.Search:
        """A search for queries that are not there yet."""
        tokens = self._store.schema.query_tokens if query_tokens is None else integer("query_tokens", query_tokens)
        if tokens is None:
            tokens = named(budget, plan).r_q
        if not tokens:
            raise ValueError("query_tokens: this index takes queries of any number of tokens; say how many with query_tokens=")
        return self.prepare(np.zeros((queries, tokens, self._store.schema.dim or 1), np.float32), scorer, filter)

    def kept(self, snapshot: Snapshot, schema: Schema, filter: Any) -> NDArray[np.int64]:
        """The rows, rising, that a filter lets through."""
        if isinstance(filter, Mapping):
            return self._store.matching(snapshot, parsed(filter))
        mask = door.mask(filter, len(snapshot))
        if mask is not None:
            return np.sort(snapshot.order[mask])
        rows = np.unique(self._store.locate(snapshot, door.filter_ids(filter, schema.id_kind)))
        return rows[rows >= 0]

    def budget(self, search: executor.Search, budget: int | tuple[int, int] | None) -> Budget:
        resolved = Budget.resolve(budget, *sides(search, named(budget, None)))
        self._warn_if_truncated(search, resolved.r_c)
        return resolved

    def steps(
        self, search: executor.Search, budget: Any, candidates: Any, plan: Any, k: int, *, default: bool = True
    ) -> tuple[Plan, tuple[Step, ...]]:
        """The plan that these arguments mean, and its stages as numbers; ``default``: the index's own where they name none."""
        plan = as_plan(plan)
        if default and plan is None and budget is None and candidates is None:
            plan = self._default(search, k)
        both = sides(search, named(budget, plan))
        resolved = None if budget is None else Budget.resolve(budget, *both)
        if candidates is not None:
            candidates = integer("candidates", candidates, least=k)
        elif default and plan is None and self._coarse is not None:
            candidates = default_candidates(k)
        coarse = self._coarse
        chosen = chosen_plan(plan, resolved, candidates, search.snapshot.levels, coarse=coarse is not None)
        steps = self._numbers(search, chosen, both, k)
        counted = steps if coarse is None or coarse.scans else [step for step in steps if step.coarse is None]
        self._warn_if_truncated(search, min(step.budget.r_c for step in counted))
        return chosen, steps

    def _numbers(self, search: executor.Search, plan: Plan, both: tuple[int, int], k: int) -> tuple[Step, ...]:
        """The stages of ``plan`` as numbers. Raises PlanError: it does not fit ``search``."""
        coarse = None if self._coarse is None else search.snapshot.levels.stop(0)
        steps = plan.steps(*both, k, coarse, search.schema.early)
        if plan.coarse is not None and self._coarse is not None:
            for name, value in plan.coarse.settings.items():
                if what := self._coarse.wrong_parameter(name, value):
                    raise PlanError(f"plan {plan}: {self._coarse.text}: {what}")
        return steps

    def _default(self, search: executor.Search, k: int) -> Plan | None:
        """The index's default plan where it fits: a search that names no plan can't be blamed for one."""
        if (text := search.schema.default_plan) is None:
            return None
        try:
            plan = Plan.parse(text)
            self._numbers(search, plan, sides(search, plan.reach), k)
        except PlanError:
            return None
        return plan

    def _warn_if_truncated(self, search: executor.Search, r_c: int) -> None:
        if r_c < search.snapshot.levels.tokens and search.schema.nested is False and not self._warned:
            self._warned = True
            warnings.warn(
                "this index was told that its vectors are not nested, so a budget that truncates documents drops tokens at "
                "random; order them with metaindex.nest first",
                stacklevel=_level_outside(),
            )

    def why_not(self, query: Any, id: Any, budget: Any, candidates: Any, plan: Any, k: int, filter: Any, scorer: str) -> WhyNot:
        search = self.prepare(query, scorer, filter)
        if len(search.queries) != 1:
            raise ShapeError(f"query: expected one query (R, d), got {len(search.queries)}")
        chosen, steps = self.steps(search, budget, candidates, plan, k)
        ids = door.ids([id], "id", search.schema.id_kind)
        (row,) = self._store.locate(search.snapshot, ids).tolist()
        (name,) = ids.tolist()
        if row >= 0:
            return why_not(search, steps, k, name, row)
        removed_by = self._store.removed_by(search.snapshot, name)
        return WhyNot(name, "unknown" if removed_by is None else "removed", k, str(chosen), removed_by=removed_by)

    def candidate_rows(self, search: executor.Search, ids: Any, argument: str) -> NDArray[np.int64]:
        lists = door.id_lists(ids, len(search.queries), argument, search.schema.id_kind)
        rows = np.full((len(lists), max((each.length for each in lists), default=0)), -1, dtype=np.int64)
        for row, each in zip(rows, lists):
            row[each.places] = self.rows(search.snapshot, each.ids)
        return rows

    def rows(self, snapshot: Snapshot, ids: NDArray, *, ignore: bool = False, advice: str = "") -> NDArray[np.int64]:
        rows = self._store.locate(snapshot, ids)
        if (missing := rows < 0).any():
            if not ignore:
                raise unknown(ids[missing], advice)
            rows = rows[~missing]
        return rows

    def check_default(self, plan: Plan) -> None:
        """Raises PlanError: no search of this index could run ``plan``."""
        search = self.prepare_empty(1, self._store.schema.query_tokens or max(1, plan.reach.r_q), None, None, "auto")
        if plan.coarse is not None and plan.coarse.settings and self._coarse is not None and self._store.schema.dim is None:
            raise PlanError(
                f"plan {plan}: which parameters {self._coarse.text} takes is known once there are documents, or with "
                f"MetaIndex(dim=...); set it then"
            )
        self._numbers(search, plan, sides(search, plan.reach), 1)


def _level_outside() -> int:
    """The ``stacklevel`` of a caller's warning at which metaindex was called: not all calls are as deep."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "metaindex":
        frame, level = frame.f_back, level + 1
    return level


def named(budget: Any, plan: Plan | None) -> Budget:
    """The largest numbers of tokens that a search's arguments name; 0 where they name none."""
    if plan is not None:
        return plan.reach
    if isinstance(budget, (tuple, list)) and len(budget) == 2 and all(isinstance(side, (int, np.integer)) for side in budget):
        return Budget(*map(int, budget))
    return Budget(0, 0)


def sides(search: executor.Search, named: Budget) -> tuple[int, int]:
    """R and T that budgets are held against. What the index was not told, it can't hold against anybody."""
    query_tokens = search.schema.query_tokens or max(search.queries.parts.codes.shape[1], named.r_q)
    tokens = search.snapshot.levels.tokens
    if not search.snapshot.rows and search.schema.doc_tokens is None:
        tokens = max(tokens, named.r_c)
    return query_tokens, tokens


def result(search: executor.Search, found: executor.Found, plan: Plan, queries: Any) -> SearchResult:
    *climbing, last = found.steps
    text = " ".join([*map(str, climbing), str(last.budget)]) if found.stats else str(plan)
    ids = search.snapshot.ids_at(np.maximum(found.rows, 0)) if search.snapshot.rows else found.rows.copy()
    if search.schema.id_kind == "text":
        ids = ids.astype(object)
    missing: Any = None if ids.dtype == object else -1
    ids[found.rows < 0] = missing
    return SearchResult(door.like(found.scores, queries), door.like(ids, queries), found.exact, text, found.stats)


def unknown(ids: NDArray, advice: str) -> UnknownIdError:
    listed = ", ".join(map(repr, ids[:5].tolist()))
    more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
    return UnknownIdError(f"ids: {listed}{more} not in the index{advice}")
