"""The record of a machine with a GPU: what ``metaindex.bench.machine`` tells, and the card, its driver, clocks and toolkit."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from typing import Any

from benchmarks.gpu.child import Rows, child
from benchmarks.gpu.process import ROOT
from metaindex.bench.machine import run_record

PACKAGES = (
    "metaindex",
    "numpy",
    "torch",
    "triton",
    "flash-maxsim",
    "late-interaction-kernels",
    "sentence-transformers",
    "matplotlib",
)
_ASKED = (
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "ecc.mode.current",
    "mig.mode.current",
    "compute_mode",
    "persistence_mode",
    "pcie.link.gen.current",
    "pcie.link.width.current",
    "utilization.gpu",
)


def record(options: argparse.Namespace) -> Rows:
    found = run_record(PACKAGES, repository=ROOT)
    found["commit"] = found["commit"] or options.commit or None  # a carried checkout has no history
    found["gpu"] = {"torch": _torch(), "nvidia_smi": smi(), "nvcc": _output("nvcc", "--version"), "sanitizer": sanitizer()}
    row: dict[str, Any] = {"run": found}
    if not options.dry_run and "failed" in found["gpu"]["torch"]:
        row["failed"] = found["gpu"]["torch"]["failed"]
    return [row]


def smi() -> dict[str, str]:
    """What nvidia-smi tells of the first card; only read, nothing is set."""
    answer = _output("nvidia-smi", "--id=0", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader")
    return dict(zip(_ASKED, (value.strip() for value in answer.split(",")))) if answer else {}


def sanitizer() -> str | None:
    """The path of compute-sanitizer, on the PATH or where CUDA puts it."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def _torch() -> dict[str, Any]:
    try:
        import torch

        if not torch.cuda.is_available():
            return {"cuda": torch.version.cuda, "failed": "torch sees no GPU"}
        seen = torch.cuda.get_device_properties(0)
        return {
            "cuda": torch.version.cuda,
            "name": seen.name,
            "capability": f"{seen.major}.{seen.minor}",
            "memory_bytes": seen.total_memory,
            "processors": seen.multi_processor_count,
            "l2_bytes": seen.L2_cache_size,
        }
    except Exception as error:  # a broken torch is worth a record too
        return {"failed": f"{type(error).__name__}: {error}"}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    raise SystemExit(child(__doc__, record, ("--commit", {"default": "", "help": "of a checkout without .git"})))
