"""metaindex: exact, and by plans that it tunes itself on queries that are not measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.engine import Setting
from metaindex import MetaIndex

PACKAGE = "metaindex"
_RECALLS = (0.9, 0.95, 0.99)


class Ours:
    """int8, in memory."""

    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        self._index = MetaIndex(codec="int8", nested=True, num_threads=threads)
        self._index.add(documents[start : start + 4096] for start in range(0, len(documents), 4096))
        self._plans = {
            f"tuned for recall {recall}": str(self._index.tune(tuning, k=10, recall=recall).plan) for recall in _RECALLS
        }

    def settings(self) -> dict[str, Setting]:
        plans = {f"{name}: {plan}": {"plan": plan} for name, plan in self._plans.items()}
        return {**plans, "exact": {}}

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        found: list[int] = np.asarray(self._index.search(query, k, **setting).ids[0]).tolist()
        return found


def engine() -> Ours:
    return Ours()
