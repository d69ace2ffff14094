"""Compiles and runs roofs.cpp, and turns its rates into the least time that a case can take."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.cases import Case

SOURCE = Path(__file__).with_name("roofs.cpp")
_SMALL = 192 << 20  # below this, the bandwidth of the smaller buffer counts where it is higher: some of it may lie in a cache

# The rates of roofs.cpp that an exact sum over a codec's products may use. The fastest one that is there is its peak.
_VECTORS = {
    "float32": ("fp32_avx512", "fp32_avx2", "fp32_generic"),
    "float16": ("fp32_avx512", "fp32_avx2", "fp32_generic"),
    "bfloat16": ("bf16_avx512", "fp32_avx512", "fp32_avx2", "fp32_generic"),
    "int8": ("int8_avx512", "int8_avx2", "fp32_generic"),
}
_TILES = {"bfloat16": "bf16_amx", "int8": "int8_amx"}

Rates = dict[str, dict[str, float]]  # by number of threads, then by name: GB/s and GOP/s


class Roofs:
    """The best rates seen over all calls of ``measure``, which runs the compiled program once."""

    def __init__(self, threads: set[int]) -> None:
        self.rates: Rates = {}
        self._threads = [str(count) for count in sorted(threads)]
        self._program = Path(tempfile.mkdtemp(prefix="roofs-")) / "roofs"
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-O3", "-std=c++17", "-pthread", str(SOURCE), "-o", str(self._program)]
        subprocess.run(command, check=True)

    def measure(self) -> None:
        done = subprocess.run([str(self._program), *self._threads], check=True, capture_output=True, text=True)
        for threads, rates in json.loads(done.stdout).items():
            kept = self.rates.setdefault(threads, {})
            for name, rate in rates.items():
                kept[name] = max(rate, kept.get(name, 0.0))


def roof_row(case: Case, codec: str, bytes_per_token: dict[str, int], rates: Rates) -> dict[str, float | None]:
    """The least milliseconds for ``case``, with documents kept in ``codec``: without matrix tiles, with them where the codec
    can use them, and with whatever codec and instructions are fastest on this machine."""
    here = rates[str(case.threads)]
    by_codec = {name: case.nbytes(size) for name, size in bytes_per_token.items()}
    with_tiles = {name: _least(case, nbytes, _tile_peak(name, here), here) for name, nbytes in by_codec.items()}
    without = {name: _least(case, nbytes, _vector_peak(name, here), here) for name, nbytes in by_codec.items()}
    possible = [ms for ms in (*with_tiles.values(), *without.values()) if ms is not None]
    return {"roof_ms": without[codec], "roof_amx_ms": with_tiles[codec], "best_roof_ms": min(possible)}


def bandwidth(nbytes: int, rates: dict[str, float]) -> float:
    return max(rates["read_gbs"], rates["read_small_gbs"]) if nbytes <= _SMALL else rates["read_gbs"]


def _vector_peak(codec: str, rates: dict[str, float]) -> float | None:
    return max((rates[f"{name}_gops"] for name in _VECTORS[codec] if f"{name}_gops" in rates), default=None)


def _tile_peak(codec: str, rates: dict[str, float]) -> float | None:
    return rates.get(f"{_TILES.get(codec)}_gops")


def _least(case: Case, nbytes: int, peak: float | None, rates: dict[str, float]) -> float | None:
    if peak is None:
        return None
    return 1e3 * max(nbytes / (bandwidth(nbytes, rates) * 1e9), case.operations / (peak * 1e9))
