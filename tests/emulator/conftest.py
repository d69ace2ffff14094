from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests import emulator

Compile = Callable[..., emulator.Module]


@pytest.fixture
def cuda(tmp_path) -> Compile:
    """``cuda(source, architecture)``: the module that nvcc makes of CUDA C++."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine to compile CUDA C++ with")

    def compiled(source: str, architecture: str = "80", *options: str) -> emulator.Module:
        return emulator.load(emulator.compile_cuda(source, tmp_path, architecture, *options))

    return compiled
