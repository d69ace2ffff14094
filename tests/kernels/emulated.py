"""The CUDA operations as they are, bindings and host code included, with kernels that run on the emulator instead of a GPU."""

from __future__ import annotations

import functools
import importlib.util
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from metaindex.scoring import cuda
from tests.emulator.host_code import HostCode

_ROOT = Path(__file__).parents[2]
_NAME = "emulated_cuda"


@functools.cache
def host_code(architecture: str) -> HostCode:
    """All portable sources, compiled for one architecture."""
    import pybind11

    folder = _ROOT / "csrc"
    sources = sorted((folder / "cuda").glob("*.cu"))
    sources += [folder / "cuda" / f"{name}.cpp" for name in ("operations", "plan", "tile_choice")]
    sources += [folder / "bindings" / f"{name}.cpp" for name in ("bind_cuda", "gil")]
    return HostCode(
        _NAME,
        [*sources, Path(__file__).with_name("cuda_module.cpp")],
        include=[folder / "include", folder / "cuda", folder / "bindings"],
        architectures=(architecture,),
        options=[f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", "-Xcompiler=-fvisibility=hidden"],
        suffix=sysconfig.get_config_var("EXT_SUFFIX"),
    )


@functools.cache
def core(architecture: str) -> Any:
    """The bindings, as a module."""
    code = host_code(architecture)
    code.library()  # finds the stand-in for the runtime, which is loaded already
    spec = importlib.util.spec_from_file_location(_NAME, code.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class EmulatedOperations(cuda.CudaOperations):
    """``CudaOperations`` on tensors in host memory. Kernels reach what is handed to them and nothing else."""

    def __init__(self, architecture: str = "80", **options: Any) -> None:
        self.architecture, self.options = architecture, options

    def maxsim_scan(self, table, *rest) -> None:
        self._run(super().maxsim_scan, table, *rest)

    def maxsim_gather(self, table, *rest) -> None:
        self._run(super().maxsim_gather, table, *rest)

    def topk(self, keys, counts, k):
        return self._run(super().topk, None, keys, counts, k)

    def encode(self, *arguments) -> None:
        self._run(super().encode, None, *arguments)

    def _run(self, operation, table, *arguments):
        reached: list[np.ndarray] = []
        if table is not None:
            tensors = (getattr(table, name) for name in cuda.TABLE_TENSORS)
            reached += [_bytes(one) for one in (*tensors, *table.held) if one is not None]
            arguments = (table, *arguments)

        def address(tensor):
            if tensor is None:
                return 0
            reached.append(_bytes(tensor))
            return tensor.data_ptr()

        module = core(self.architecture)
        before = cuda._native, cuda.queue_of, cuda._address
        cuda._native, cuda.queue_of, cuda._address = SimpleNamespace(core=module), lambda _: module.DeviceQueue(0, 0), address
        cuda._tables.clear()
        try:
            with host_code(self.architecture).device(self.architecture, reached, **self.options):
                return operation(*arguments)
        finally:
            cuda._native, cuda.queue_of, cuda._address = before
            cuda._tables.clear()


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()
