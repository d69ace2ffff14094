"""The CUDA operations as they are, bindings and host code included, with kernels that run on the emulator instead of a GPU."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaindex.device.residency import Residency
from metaindex.scoring.cuda import TABLE_TENSORS, CudaOperations, CudaScorer, ScanPath
from tests.emulator.host_code import HostCode

_ROOT = Path(__file__).parents[2]
_NAME = "emulated_cuda"


def why_not() -> str | None:
    """Why nothing can be emulated here; ``None`` where it can."""
    if shutil.which("nvcc") is None:
        return "no nvcc on this machine to compile the kernels with"
    return None if importlib.util.find_spec("pybind11") else "pybind11 is not installed, which the bindings need"


@functools.cache
def host_code() -> HostCode:
    """All CUDA sources."""
    import pybind11

    folder = _ROOT / "csrc"
    sources = [*sorted((folder / "cuda").glob("*.cu")), *sorted((folder / "cuda" / "sm90").glob("*.cu"))]
    sources += [folder / "cuda" / f"{name}.cpp" for name in ("operations", "plan", "scan_choice", "tile_choice")]
    sources += [folder / "bindings" / f"{name}.cpp" for name in ("bind_cuda", "gil")]
    return HostCode(
        _NAME,
        [*sources, Path(__file__).with_name("cuda_module.cpp")],
        include=[folder / "include", folder / "cuda", folder / "bindings"],
        architectures=("80", "90a"),
        options=[f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}", "-Xcompiler=-fvisibility=hidden"],
        suffix=sysconfig.get_config_var("EXT_SUFFIX"),
    )


@functools.cache
def core() -> Any:
    """The bindings, as a module."""
    code = host_code()
    code.library()  # finds the stand-in for the runtime, which is loaded already
    spec = importlib.util.spec_from_file_location(_NAME, code.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class EmulatedOperations(CudaOperations):
    """``CudaOperations`` on tensors in host memory. Kernels reach what is handed to them and nothing else.

    Args:
        architecture: "80", or "90a" for a Hopper.
        options: how the emulator runs, see ``Module.launch`` and ``HostCode.device``.
    """

    def __init__(self, architecture: str = "80", path: ScanPath | None = None, **options: Any) -> None:
        super().__init__(path)
        self.architecture, self.options = architecture, options
        self._reached: list[np.ndarray] = []

    @property
    def core(self) -> Any:
        return core()

    @property
    def launches(self) -> list[str]:
        """The kernels that were launched so far."""
        return [name for name, _, _ in host_code().launches]

    def why_not(self, device: str) -> str | None:
        return why_not()

    def maxsim_scan(self, table, queries, r_c, span, allow, out) -> None:
        self._run(super().maxsim_scan, table, queries, r_c, span, allow, out)

    def maxsim_gather(self, table, queries, r_c, candidates, allow, out) -> None:
        self._run(super().maxsim_gather, table, queries, r_c, candidates, allow, out)

    def topk(self, keys, counts, k):
        return self._run(super().topk, keys, counts, k)

    def queue(self, tensor):
        return self.core.DeviceQueue(0, 0)

    def address(self, tensor):
        if tensor is None:
            return 0
        self._reach(tensor)
        return tensor.data_ptr()

    def _card(self, device):
        if not self._cards:
            with self._device():
                self._cards = self.core.cuda_cards()
        return self._cards[0]

    def _run(self, operation, table, *arguments):  # or keys
        self._reached = []
        if not isinstance(table, torch.Tensor):
            levels = (tensor for placed in table.held for tensor in placed.tensors)
            for one in (*(getattr(table, name) for name in TABLE_TENSORS), *levels):
                if one is not None:
                    self._reach(one)
            self._card(table.device)  # which is asked on a device of its own
        with self._device():
            return operation(table, *arguments)

    def _device(self):
        return host_code().device(self.architecture, self._reached, **self.options)

    def _reach(self, tensor: torch.Tensor) -> None:
        if tensor.numel():
            self._reached.append(tensor.reshape(-1).view(torch.uint8).numpy())


def emulated_scorer(architecture: str = "80", path: ScanPath | None = None) -> CudaScorer:
    return CudaScorer(Residency("cpu"), EmulatedOperations(architecture, path))
