"""Intervals for a mean over queries, each of which counts once: the hits of one query are not independent of one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964  # the 97.5 % point of the normal distribution
_RESAMPLES = 2000


def wilson(values: NDArray[np.float64]) -> tuple[float, float]:
    """A 95 % interval for the mean of per-query recalls, numbers in 0..1: Wilson's, as for that share of so many coins.

    No distribution in 0..1 has a larger variance than a coin of the same mean, so the interval is too wide rather than too
    narrow. And where no query missed anything, which is where a good plan ends up, it still says what so few queries can't
    exclude; a bootstrap would say [1, 1].
    """
    n, mean = len(values), float(np.mean(values))
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * (mean * (1 - mean) / n + _Z**2 / (4 * n**2)) ** 0.5 / (1 + _Z**2 / n)
    return max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))


def bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """A 95 % interval for the mean of per-query values far from their bounds, such as nDCG: percentiles of resampled means."""
    picks = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
