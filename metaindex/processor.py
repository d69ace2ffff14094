"""The processor: its name, instruction sets and caches, as far as the operating system tells."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

# The instruction sets that scorers, ours and others', choose their code by.
# fmt: off
SCORING_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme",
)
# fmt: on

_LAST_CACHE, _CORE_CACHE = 32 << 20, 1 << 20  # bytes, where the system does not tell


def cpu_model() -> str:
    for line in lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    if sys.platform == "darwin":
        return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Those of ``SCORING_FLAGS`` that the processor and the operating system offer."""
    for line in lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            offered = set(value.split())
            return [flag for flag in SCORING_FLAGS if flag in offered]
    return []


def caches() -> dict[str, str]:
    """The first core's caches by level, as the system words them: ``{"L1 Data": "48K", "L3 Unified": "32768K"}``."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (" ".join(lines(folder / name)).strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def last_cache_bytes() -> int:
    """The size of the last cache, or a guess where the system does not tell."""
    return max(_cache_sizes().values(), default=_LAST_CACHE)


def core_cache_bytes() -> int:
    """The size of a core's second cache, or a guess where the system does not tell."""
    return next((size for name, size in _cache_sizes().items() if name.startswith("L2 ")), _CORE_CACHE)


def _cache_sizes() -> dict[str, int]:
    return {
        name: int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]]
        for name, text in caches().items()
        if text[:-1].isdigit() and text[-1] in "KM"
    }


def lines(path: str | Path) -> list[str]:
    """The lines of a file; none where it can't be read."""
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def output(*command: str) -> str:
    """What a command prints, stripped; nothing where it fails."""
    import subprocess  # not for every import of metaindex

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
