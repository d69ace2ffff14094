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
# What is tried: data of so many times a core's own cache stays near, and so many times that, or more, comes from memory. Other
# users of a processor may leave this one little of a last cache of any size.
_STAYS, _GOES = (1, 4, 16, 64), (4, 16, 64, 256, 1024)
_STARTS = (0.0, 10e-6, 30e-6, 60e-6, 100e-6)


class Sample(NamedTuple):
    """A stage that ran, and how long it took."""

    work: StageWork
    seconds: float


def rates(near: Sequence[Sample], kept: Sequence[Sample], far: Sequence[Sample], core_cache: int) -> Rates:
    """The rates that explain stages on data ``near``, stages that keep many of a narrow level, and stages on data ``far``, on a
    machine whose cores have caches of so many bytes."""
    found = Rates(_arithmetic([*near, *kept], True), _arithmetic([*near, *kept], False))
    for scans in (True, False):
        beyond = [sample for sample in far if sample.work.scans == scans]
        sizes = ((small * core_cache, small * large * core_cache) for small, large in product(_STAYS, _GOES))
        tried = [_memory(found, beyond, scans, *each) for each in sizes]
        found = min(tried, key=_error(lambda each: each, beyond, 1))
    return found


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


def _memory(found: Rates, far: Sequence[Sample], scans: bool, near: int, away: int) -> Rates:
    """``found`` with what reading costs where data is far: the rest of the time of those stages, where it is longer than
    arithmetic takes, for caches of these sizes."""
    rates, caches = found.scan if scans else found.gather, FarRates(near=near, away=away)
    idle = _with(found, scans, replace(rates, lanes=tuple(each._replace(token=0.0, dim=0.0) for each in rates.lanes)))
    columns, left = list[list[float]](), list[tuple[float, float]]()
    for work, seconds in far:
        rest = seconds - idle.seconds(work)
        if rest > found.seconds(work) - idle.seconds(work):
            counts = (0, 0, 0, work.nbytes) if scans else (1, work.documents, work.pieces, work.nbytes)
            shares = (caches.outside(work.footprint), *[caches.missing(work)] * 3)
            columns.append([share * count for share, count in zip(shares, counts)])
            left.append((rest, seconds))
    if not columns:
        return found
    rest_of, whole = np.array(left).T
    stage, document, piece, byte = least_squares(np.array(columns), rest_of, whole).tolist()
    return _with(found, scans, replace(rates, far=FarRates(stage, document, piece, byte, near, away)))


def best_threads(found: Rates, scans: bool, samples: Sequence[Sample], num_threads: int) -> Rates:
    """``found`` with what so many threads do to scans, or to the other stages, that explains their times best."""
    rates = found.scan if scans else found.gather

    def tried(threads: Threads) -> Rates:
        return _with(found, scans, replace(rates, threads=threads))

    speeds = np.geomspace(0.7, num_threads, 12).tolist()
    choices = (Threads(num_threads, *each) for each in product(_STARTS, speeds, speeds))
    return tried(min(choices, key=_error(tried, samples, num_threads)))


def _with(found: Rates, scans: bool, rates: OperationRates) -> Rates:
    return replace(found, scan=rates) if scans else replace(found, gather=rates)


def _error(tried: Callable[[Any], Rates], samples: Sequence[Sample], num_threads: int) -> Callable[[Any], float]:
    def error(choice: Any) -> float:
        rates = tried(choice)
        return sum(math.log(rates.seconds(sample.work, num_threads) / sample.seconds) ** 2 for sample in samples)

    return error


def least_squares(
    columns: NDArray[np.float64], seconds: NDArray[np.float64], whole: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Rates >= 0 [n] for which ``columns`` [m, n] times rates comes nearest to ``seconds`` [m], errors taken relative to them
    or to ``whole``: by coordinate descent, which for a few dozen rates is quick enough."""
    whole = seconds if whole is None else whole
    scaled = columns / whole[:, None]
    norms = np.square(scaled).sum(axis=0)
    rates = np.zeros(scaled.shape[1])
    left = seconds / whole
    for _ in range(_SWEEPS):
        before = float(left @ left)
        for at in np.flatnonzero(norms):
            step = max(-rates[at], float(scaled[:, at] @ left) / norms[at])
            rates[at] += step
            left -= step * scaled[:, at]
        if before - float(left @ left) <= _SETTLED * before:
            break
    return rates
