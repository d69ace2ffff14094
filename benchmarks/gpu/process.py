"""One process from its start to its end or the end of its time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
POISONED = 70
"""The exit code of a race in which a contestant left the device unusable."""

_HEAD, _TAIL = 3_000, 9_000  # characters kept of what is printed


class Done(NamedTuple):
    """A process after its end: ``why`` where it did not end by itself, and the rows that it left in its folder."""

    code: int
    text: str
    rows: list[dict[str, Any]]
    folder: Path
    why: str = ""


def finished(command: list[str], folder: Path, seconds: float, environment: Mapping[str, str]) -> Done:
    """Run a command line, with an empty Triton cache in ``folder`` unless ``environment`` names another."""
    cache, output = folder / "triton", folder / "output"
    shutil.rmtree(cache, ignore_errors=True)
    every = {"TRITON_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    why = ""
    with output.open("wb") as stream:
        try:
            # A process group of its own can be ended as a whole; a session of its own would outlive this one.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **every, **environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=os.setpgrp,
            )
        except OSError as error:
            return Done(127, str(error), [], folder, str(error))
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code, why = -signal.SIGKILL, f"ended after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Done(code, shortened(output.read_text(errors="replace")), _rows(folder), folder, why)


def shortened(text: str) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]}\n... {len(text) - _HEAD - _TAIL:,} characters left out ...\n{text[-_TAIL:]}"


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "rows.json"
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        return []
    return found
