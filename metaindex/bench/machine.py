"""The machine's record: what a measured number needs beside it to mean anything."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from metaindex.checks import usable_cores
from metaindex.processor import caches, cpu_flags, cpu_model, lines, output

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


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def huge_pages() -> str:
    """The mode of transparent huge pages: always, madvise, never, or unknown."""
    text = " ".join(lines("/sys/kernel/mm/transparent_hugepage/enabled"))
    return text.partition("[")[2].partition("]")[0] or "unknown"


def compiler_version() -> str | None:
    for compiler in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if shutil.which(compiler):
            return (output(compiler, "--version") or compiler).splitlines()[0]
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
    commit = output("git", "-C", str(repository), "rev-parse", "HEAD")
    if not commit:
        return None
    changed = output("git", "-C", str(repository), "status", "--porcelain", "--untracked-files=no")
    return commit + ("+changes" if changed else "")
