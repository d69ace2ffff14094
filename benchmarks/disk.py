"""What the disk itself does: one file written and synced, files read, neither through metaindex."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8 << 20


class Taken(NamedTuple):
    """Wall-clock seconds, and the processor seconds of all threads of this process."""

    seconds: float
    cpu: float


def timed(call: Callable[[], object]) -> Taken:
    started, cpu = time.perf_counter(), time.process_time()
    call()
    return Taken(time.perf_counter() - started, time.process_time() - cpu)


def write(path: Path, array: NDArray) -> None:
    """Write a new file of ``array``, and make it and its folder durable."""
    data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            while block:
                block = block[os.write(fd, block) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(paths: Iterable[Path]) -> None:
    """Read whole files."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(_BLOCK):
                pass


def forget(paths: Iterable[Path]) -> None:
    """Drop the files from the page cache, as far as the system does what it is told."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turns(contestants: Mapping[str, Callable[[], Taken]], rounds: int) -> dict[str, list[Taken]]:
    """What each contestant took in each round, every round in a rotated order, after one round that does not count: blocks
    that a disk never held before take longer to write."""
    names = list(contestants)
    found: dict[str, list[Taken]] = {name: [] for name in names}
    for round_ in range(rounds + 1):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            taken = contestants[name]()
            if round_:
                found[name].append(taken)
    return found


def filesystem(path: Path) -> str:
    """The type and the source of the file system that holds ``path``, such as ``ext4 /dev/sda1``."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if head.split()[2] == wanted:
            return " ".join(tail.split()[:2])
    return "unknown"
