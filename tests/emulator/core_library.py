"""The compiled core: built at its first use, kept under build/ for as long as its sources stay the same."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SOURCES = Path(__file__).with_name("core")
_KEPT = Path(__file__).parents[2] / "build" / "emulator"
# -frounding-math: directed roundings are made by changing the processor's mode.
_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-frounding-math", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
if platform.machine() == "x86_64":
    _FLAGS += ["-march=x86-64-v3"]  # fused multiply-adds as instructions


class Launch(ctypes.Structure):
    """As in core/api.cpp."""

    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint32),
        ("delivery", ctypes.c_int32),
        ("races", ctypes.c_int32),
        ("rows_over_copies", ctypes.c_int32),
        ("resident", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("buffers", ctypes.c_int64),
        ("ranges", ctypes.c_void_p),
        ("names", ctypes.c_char_p),
        ("instructions", ctypes.c_uint64),
        ("thread_instructions", ctypes.c_uint64),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """A C++ compiler is part of what the project needs, so its absence is an error."""
    found = ctypes.CDLL(str(_built()))
    found.emulator_load.restype = ctypes.c_void_p
    found.emulator_load.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    found.emulator_unload.argtypes = [ctypes.c_void_p]
    found.emulator_launch.argtypes = [ctypes.c_void_p, ctypes.POINTER(Launch), ctypes.c_char_p, ctypes.c_size_t]
    return found


def _built() -> Path:
    sources = sorted(_SOURCES.glob("*.[ch]pp"))
    digest = hashlib.sha256(repr(_FLAGS).encode())
    for source in sources:
        digest.update(source.read_bytes())
    target = _KEPT / f"core-{digest.hexdigest()[:16]}.so"
    if target.exists():
        return target
    _KEPT.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory(dir=_KEPT) as folder:

        def compiled(source: Path) -> str:
            output = f"{folder}/{source.stem}.o"
            subprocess.run([compiler, *_FLAGS, "-c", str(source), "-o", output], check=True)
            return output

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, [source for source in sources if source.suffix == ".cpp"]))
        subprocess.run([compiler, "-shared", "-o", f"{folder}/core.so", *objects], check=True)
        os.replace(f"{folder}/core.so", target)
    return target
