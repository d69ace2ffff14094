"""Runs PTX on the CPU, so that CUDA kernels are tested without a GPU.

What it knows comes from the PTX ISA, not from the kernels it runs. It is stricter than a GPU where a GPU would be silent:
accesses are checked, memory that nobody has written is poison, asynchronous copies and products are visible only once they were
waited for, and shared memory is searched for races.
"""

from tests.emulator.module import Counts, EmulationError, Module, compile_cuda, load
from tests.emulator.tensor_map import TensorMap, encoded

__all__ = ["Counts", "EmulationError", "Module", "TensorMap", "compile_cuda", "encoded", "load"]
