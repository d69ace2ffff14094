"""Interleaved timing under the name that benchmarks know; the tuner below the index uses the same."""

from metaindex.timing import WARM_UP_BELOW, Timing, interleave

__all__ = ["WARM_UP_BELOW", "Timing", "interleave"]
