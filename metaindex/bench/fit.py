"""Rates from measured stages: least squares of relative errors, no rate below zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.planning.cost import FarRates, LaneRates, OperationRates, Rates, StageWork, Threads

_SWEEPS = 5000
_SETTLED = 1e-9  # relative
_ROUNDS = 4
_FAR_RATES = (0.0, *(1e-12 * 1.15**step for step in range(125)))  # up to some ten microseconds
_STARTS = (0.0, 3e-6, 10e-6, 30e-6)


class Sample(NamedTuple):
    """A stage that ran, and how long it took."""

    work: StageWork
    seconds: float


def rates(near: Sequence[Sample], kept: Sequence[Sample], far: Sequence[Sample], caches: tuple[int, int]) -> Rates:
    """The rates that explain stages on data ``near``, stages that keep many of a narrow level, and stages on data ``far``."""
    found = Rates(_arithmetic([*near, *kept], True), _arithmetic([*near, *kept], False), caches)
    return _memory(_memory(found, far, True), far, False)


def _arithmetic(samples: Sequence[Sample], scans: bool) -> OperationRates:
    samples = [sample for sample in samples if sample.work.scans == scans]
    lanes = sorted({sample.work.lanes for sample in samples})
    columns = np.array([_columns(sample.work, lanes) for sample in samples], np.float64)
    stage, comparison, pack, kept, sifted, piece, *rest = least_squares(
        columns, np.array([sample.seconds for sample in samples])
    ).tolist()
    each = tuple(LaneRates(number, *rest[3 * at : 3 * at + 3]) for at, number in enumerate(lanes))
    return OperationRates(stage, comparison, pack, kept, sifted, each, piece)


def _columns(work: StageWork, lanes: Sequence[int]) -> list[float]:
    """How often each rate is paid; see ``Rates.seconds``."""
    kept = work.queries * work.kept
    behind = kept * math.log(max(1.0, work.comparisons / max(1, kept)))
    common = (1, work.comparisons - work.documents, work.queries * work.query_tokens * work.dim, kept, behind, work.pieces)
    counts = (work.documents, work.tokens, work.tokens * work.dim)
    return [*map(float, common), *(float(count * (work.lanes == number)) for number in lanes for count in counts)]


def _memory(found: Rates, far: Sequence[Sample], scans: bool) -> Rates:
    """``found`` with what reading costs where data is far: the rates that explain those stages best."""
    name = "scan" if scans else "gather"
    samples = [sample for sample in far if sample.work.scans == scans]

    def tried(rates: FarRates) -> Rates:
        return replace(found, **{name: replace(getattr(found, name), far=rates)})

    # A scan has no pieces, and only the slower of its tokens and bytes could be told.
    fields = ("byte",) if scans else FarRates._fields
    best = FarRates()
    for _ in range(_ROUNDS):  # one rate after another
        for each in fields:
            best = min((best._replace(**{each: rate}) for rate in _FAR_RATES), key=_error(tried, samples, 1))
    return tried(best)


def best_threads(found: Rates, scans: bool, samples: Sequence[Sample], num_threads: int) -> Rates:
    """``found`` with what so many threads do to scans, or to the other stages, that explains their times best."""
    name = "scan" if scans else "gather"

    def tried(threads: Threads) -> Rates:
        return replace(found, **{name: replace(getattr(found, name), threads=threads)})

    speeds = np.geomspace(0.7, num_threads, 12).tolist()
    choices = (Threads(num_threads, *each) for each in product(_STARTS, speeds, speeds))
    return tried(min(choices, key=_error(tried, samples, num_threads)))


def _error(tried: Callable[[Any], Rates], samples: Sequence[Sample], num_threads: int) -> Callable[[Any], float]:
    def error(choice: Any) -> float:
        rates = tried(choice)
        return sum(math.log(rates.seconds(sample.work, num_threads) / sample.seconds) ** 2 for sample in samples)

    return error


def least_squares(columns: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rates >= 0 [n] for which ``columns`` [m, n] times rates comes nearest to ``seconds`` [m], errors taken relative: by
    coordinate descent, which for a few dozen rates is quick enough."""
    scaled = columns / seconds[:, None]
    norms = np.square(scaled).sum(axis=0)
    rates = np.zeros(scaled.shape[1])
    left = np.ones(len(seconds))
    for _ in range(_SWEEPS):
        before = float(left @ left)
        for at in np.flatnonzero(norms):
            step = max(-rates[at], float(scaled[:, at] @ left) / norms[at])
            rates[at] += step
            left -= step * scaled[:, at]
        if before - float(left @ left) <= _SETTLED * before:
            break
    return rates
