"""Host memory that kernels read over the bus: ordinary memory that is registered with the driver.

torch's own pinned memory comes in blocks of powers of two, up to twice what was asked for, and what is freed never goes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from metaindex.device.devices import driver

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HOST_ADDRESSES = 91  # CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM
_PORTABLE, _MAPPED = 1, 2  # flags of cudaHostRegister


def pinned(nbytes: int, device: torch.device) -> Tensor:
    """Bytes uint8 [nbytes] in host memory, at a multiple of 16, which the device reads at the same address.

    Raises RuntimeError: so much can't be pinned.
    """
    import torch

    if device.type != "cuda":
        return torch.empty(nbytes, dtype=torch.uint8)
    found = _registered(nbytes, device) if nbytes and _reads_host_addresses(device) else None
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True) if found is None else found


def _registered(nbytes: int, device: torch.device) -> Tensor | None:
    """``None`` where the driver doesn't register it."""
    import torch

    try:
        pages = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # whole pages, which no other block lies on
    except OSError:
        return None
    pages.madvise(mmap.MADV_DONTFORK)  # a child process would get a copy of what is pinned
    memory = np.frombuffer(pages, np.uint8)
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(memory.ctypes.data, nbytes, _PORTABLE | _MAPPED)):
            with contextlib.suppress(RuntimeError):  # the runtime reports the failure once more, to the kernel that is next
                torch.ones(1, device=device)
            return None
    # The tensor holds the array, and the array the pages; its finalizer comes before those go.
    weakref.finalize(memory, runtime.cudaHostUnregister, memory.ctypes.data).atexit = False
    return torch.from_numpy(memory)


def _reads_host_addresses(device: torch.device) -> bool:
    """Whether registered memory has one address for both; under Windows it has two."""
    if sys.platform != "linux":
        return False
    found, value, handle = driver(), ctypes.c_int(), ctypes.c_int()
    if found is None or found.cuDeviceGet(ctypes.byref(handle), device.index or 0):
        return False
    return not found.cuDeviceGetAttribute(ctypes.byref(value), _HOST_ADDRESSES, handle) and bool(value.value)
