"""The cheapest plan that reaches a quality: searched in numbers on training queries, measured on held-out ones."""

from metaindex.tuning.outcome import Measured, Tuning

__all__ = ["Measured", "Tuning"]
