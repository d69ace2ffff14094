"""The GPU side of the benchmarks, one program: ``python -m benchmarks.gpu``. See README.md one folder up.

Processes that only plan, start and report import neither torch nor what needs a GPU.
"""

DRY = "dry run: not a measurement"
"""Stands in every output of a run without a GPU."""
