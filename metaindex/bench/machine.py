"""The machine's record: what a measured number needs beside it to mean anything."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from metaindex.checks import usable_cores

# The instruction sets that scorers, ours and others', choose their code by.
# fmt: off
SCORING_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme",
)
# fmt: on

PACKAGES = ("metaindex", "numpy", "safetensors")


def machine_record() -> dict[str, Any]:
    """The processor, its instruction sets, memory, operating system and compiler. Takes milliseconds; never raises."""
    return {
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "flags": cpu_flags(),
        "caches": caches(),
        "memory_bytes": memory_bytes(),
        "huge_pages": huge_pages(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": compiler_version(),
    }


def run_record(
    packages: Iterable[str] = PACKAGES, *, repository: Path | None = None, seed: int | None = None
) -> dict[str, Any]:
    """The machine's record with what one run adds: the date (UTC), the versions of ``packages``, the commit, the seed."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "versions": versions(packages),
        "commit": git_commit(repository),
        "seed": seed,
    }


def cpu_model() -> str:
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Those of ``SCORING_FLAGS`` that the processor and the operating system offer."""
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            offered = set(value.split())
            return [flag for flag in SCORING_FLAGS if flag in offered]
    return []


def caches() -> dict[str, str]:
    """The first core's caches by level, as the system words them: ``{"L1 Data": "48K", "L3 Unified": "32768K"}``."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (" ".join(_lines(folder / name)).strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def huge_pages() -> str:
    """The mode of transparent huge pages: always, madvise, never, or unknown."""
    text = " ".join(_lines("/sys/kernel/mm/transparent_hugepage/enabled"))
    return text.partition("[")[2].partition("]")[0] or "unknown"


def compiler_version() -> str | None:
    for compiler in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if shutil.which(compiler):
            return (_output(compiler, "--version") or compiler).splitlines()[0]
    return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, ``None`` where it is missing."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_commit(repository: Path | None) -> str | None:
    """The checked-out commit, with ``+changes`` where tracked files differ from it; ``None`` outside a repository."""
    if repository is None:
        return None
    commit = _output("git", "-C", str(repository), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _output("git", "-C", str(repository), "status", "--porcelain", "--untracked-files=no")
    return commit + ("+changes" if changed else "")


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
