"""How much time a tuning may take, and who is told how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

from metaindex.checks import is_number

Progress = Callable[[float, str], None]
"""Told the share that is done, 0 to 1, and what comes next."""


class Clock:
    """Counts ``limit`` seconds from when it is made. Raises ValueError where that is no time."""

    def __init__(self, limit: float, progress: Progress | None = None) -> None:
        if not is_number(limit) or not limit > 0:
            raise ValueError(f"seconds: expected a number above 0, got {limit!r}")
        self.limit, self._progress = float(limit), progress
        self._started = time.perf_counter()
        self._share = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @property
    def share(self) -> float:
        """The share of the time that is gone; above 1 where it took longer."""
        return self.seconds / self.limit

    def past(self, share: float) -> bool:
        """Whether more than a share of the time is gone."""
        return self.share > share

    def tell(self, share: float, what: str) -> None:
        self._share = min(1.0, max(self._share, share))
        if self._progress is not None:
            self._progress(self._share, what)
