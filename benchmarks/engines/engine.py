"""What an engine is to this benchmark, and what is measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

Setting: TypeAlias = "Mapping[str, Any]"
"""Search parameters, by the engine's own names."""


class Engine(Protocol):
    """One engine, in a process of its own. It is given unit vectors, so that cosine and inner product agree."""

    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        """Index documents float32 [N, T, d], whose ids are 0..N-1. ``tuning``: queries [B, R, d], never measured, to choose
        settings by. ``folder`` is empty and may be written to."""

    def settings(self) -> dict[str, Setting]:
        """What to measure, by name: each a way to search, from fast to thorough."""

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        """The ids of the ``k`` best documents for a query float32 [R, d], best first."""


@dataclass(frozen=True)
class Built:
    """What a build took: seconds, and bytes of the process's memory and of files that it left."""

    seconds: float
    memory: int
    disk: int
    settings: tuple[str, ...]
    version: str


def resident_bytes() -> int:
    """The memory of this process that is its own or mapped and touched."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
