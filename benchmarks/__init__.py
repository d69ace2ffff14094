"""The benchmarks of this repository: ``python -m benchmarks``."""
