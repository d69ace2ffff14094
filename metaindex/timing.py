"""Interleaved timing: contestants take turns, so that a noisy moment of the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A thread pool that has slept, and caches that a neighbour has filled, make a turn's first call slower than the rest.
WARM_UP_BELOW = 0.25  # seconds; slower calls don't notice, and a second one would double the length of a run

_FEWEST_ROUNDS = 3


@dataclass
class Timing:
    """The wall-clock seconds of every timed call of one contestant."""

    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self) -> dict[str, Any]:
        return {"median_ms": 1e3 * self.median, "best_ms": 1e3 * self.best, "calls": len(self.seconds)}


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    turn_seconds: float = 0.2,
    max_calls: int = 20,
    pause: float = 0.01,
    limit_seconds: float = float("inf"),
    before_turn: Callable[[str], None] | None = None,
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, Timing]:
    """Time the contestants, round by round, each round in a rotated order.

    A turn is one untimed call and then as many timed ones as fit ``turn_seconds``, 1 to ``max_calls``. ``pause`` seconds
    before a turn let the threads of the one before go to sleep. After ``limit_seconds`` no round but the first three starts.
    ``clock`` makes a call and tells its seconds; by default those on the wall. An exception of a contestant passes through.
    """
    names = list(contestants)
    timings = {name: Timing() for name in names}
    started = time.perf_counter()
    for round_ in range(rounds):
        if round_ >= _FEWEST_ROUNDS and time.perf_counter() - started > limit_seconds:
            break
        shift = round_ % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if before_turn is not None:
                before_turn(name)
            time.sleep(pause)
            _turn(contestants[name], timings[name], turn_seconds, max_calls, clock or wall_seconds)
    return timings


def _turn(
    call: Callable[[], object],
    timing: Timing,
    turn_seconds: float,
    max_calls: int,
    clock: Callable[[Callable[[], object]], float],
) -> None:
    expected = timing.best if timing.seconds else None
    if expected is None or expected < WARM_UP_BELOW:
        first = clock(call)
        expected = min(first, expected or first)
        if expected >= WARM_UP_BELOW:
            timing.seconds.append(first)
            return
    calls = int(min(max_calls, max(1, turn_seconds // max(expected, 1e-9))))
    timing.seconds.extend(clock(call) for _ in range(calls))


def wall_seconds(call: Callable[[], object]) -> float:
    """How long a call takes until it returns."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
