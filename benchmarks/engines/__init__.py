"""Whole engines side by side: recall, latency, memory and build time on the same vectors. ``python -m benchmarks engines``."""
