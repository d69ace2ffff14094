"""Which device an index works on, found without importing torch where there is no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from typing import Any

from metaindex.errors import BackendError

_NAME = re.compile(r"cpu|cuda(:[0-9]+)?")


@cache  # without one the loader looks in all its folders
def driver() -> Any:
    """NVIDIA's driver, as a library of C that is ready for calls; ``None`` where there is none."""
    try:
        found = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if found.cuInit(0) else found


@cache  # every search asks
def gpus() -> int:
    """How many GPUs the driver has; 0 without a driver."""
    count = ctypes.c_int()
    found = driver()
    return 0 if found is None or found.cuDeviceGetCount(ctypes.byref(count)) else count.value


def resolved(device: Any) -> str:
    """``"cpu"`` or ``"cuda:<number>"`` for a ``device`` argument: "auto", "cpu", "cuda", "cuda:1" or a torch.device.

    "auto" is the first GPU where the driver has one and torch can use it, and else "cpu".

    Raises:
        TypeError, ValueError: no such argument. BackendError: the GPU that was asked for can't be used; the message says why.
    """
    name = str(device)
    if not isinstance(device, str) and type(device).__module__ != "torch":
        raise TypeError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {type(device).__name__}")
    if name == "auto":
        return "cpu" if why_no_gpu() else "cuda:0"
    if not _NAME.fullmatch(name):
        raise ValueError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {name!r}")
    if name == "cpu":
        return name
    number = int(name.partition(":")[2] or 0)
    if why := why_no_gpu(number):
        raise BackendError(f"device {name!r}: {why}")
    return f"cuda:{number}"


def why_no_gpu(number: int = 0) -> str | None:
    """Why GPU ``number`` can't be used; ``None`` where it can. torch is imported only where the driver has that GPU."""
    count = gpus()
    if number >= count:
        return f"the driver has {count} GPUs" if count else "no NVIDIA driver with a GPU is here"
    if importlib.util.find_spec("torch") is None:
        return "torch, which owns all memory on a GPU, is not installed"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if number >= torch.cuda.device_count():
        return f"torch sees {torch.cuda.device_count()} GPUs"
    capability = torch.cuda.get_device_capability(number)
    if capability < (8, 0):
        return f"its compute capability is {capability[0]}.{capability[1]}; 8.0 and above are supported"
    return None
