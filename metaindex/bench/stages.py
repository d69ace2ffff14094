"""One stage at a time, timed as it runs within a search: what calibration and its check share."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metaindex.execution import windows
from metaindex.execution.executor import Search
from metaindex.index import MetaIndex
from metaindex.planning.plan import Step
from metaindex.types import Budget

Clock = Callable[[], float]
_BEFORE = Step(Budget(1, 4), 10)
_WARMING = 3


def clock(num_threads: int) -> Clock:
    """The time that one thread itself takes, whatever else runs on its processor; for several threads that of the wall."""
    return time.thread_time if num_threads == 1 else time.perf_counter


class StageTimer:
    """Times stages, on other candidates each time, drawn by ``seed``."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def seconds(self, search: Search, step: Step, candidates: int | None, clock: Clock, *, cold: bool) -> float:
        """One run of ``step`` for ``candidates`` per query, or of a scan. ``cold``: after a scan of the first tokens, as later
        stages of a plan run; else after runs on other candidates: caches keep what was read more than once, as the first stage
        of search after search is."""
        rows = self._rows(search, candidates)
        if cold:
            self._run(search, _BEFORE, None, clock)
        else:
            for _ in range(_WARMING):
                self._run(search, step, self._rows(search, candidates), clock)
        return self._run(search, step, rows, clock)

    @staticmethod
    def _run(search: Search, step: Step, rows: NDArray[np.int64] | None, clock: Clock) -> float:
        request = search.request(step.budget, rows, min(step.keep, search.available))
        scorer = search.registry.choose(request, search.scorer).scorer
        best, found = np.empty(request.output_shape, np.float32), np.empty(request.output_shape, np.int64)
        begun = clock()
        windows.score(scorer, request, best, found)
        return clock() - begun

    def _rows(self, search: Search, count: int | None) -> NDArray[np.int64] | None:
        """Different documents in any order for each query."""
        if count is None:
            return None
        rows, random = search.snapshot.rows, self.random
        drawn = [
            random.permutation(rows)[:count] if 4 * count > rows else random.choice(rows, count, replace=False)
            for _ in range(len(search.queries))
        ]
        return np.stack(drawn)


def index(codec: str, dim: int, documents: int, tokens: int) -> MetaIndex:
    """An index of that many random documents in one segment, many of them copies of others, whose scorers use one thread."""
    distinct = min(documents, 500)
    some = np.random.default_rng(1).standard_normal((distinct, tokens, dim), dtype=np.float32)
    made = MetaIndex(codec=codec, num_threads=1, device="cpu")
    made.add(some[: min(distinct, documents - start)] for start in range(0, documents, distinct))
    made.compact()
    return made


def search(searched: MetaIndex, r_q: int, batch: int, random: np.random.Generator) -> Search:
    """A search for ``batch`` random queries of ``r_q`` tokens."""
    queries = random.standard_normal((batch, r_q, searched.schema.dim or 1), dtype=np.float32)
    return searched._searches.prepare(queries, "auto")
