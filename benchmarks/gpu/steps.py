"""The steps, as data, in their order: first whether it is right, then the most telling races."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.cases import CASES
from benchmarks.gpu.machine import sanitizer
from benchmarks.gpu.process import Done
from benchmarks.gpu.runner import Context, Step, by_exit_code, by_rows
from metaindex.scoring.registry import Verdict

Command = Callable[[Context, Path], list[str]]

_JUNIT = "junit.xml"
_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")
_CACHE = {"TRITON_CACHE_DIR": "{state}/triton"}  # kernels that were compiled once serve every tool
_WATCHED = _CACHE | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # else memcheck sees torch's pools in place of tensors


def _module(name: str, *arguments: str) -> Command:
    def command(context: Context, folder: Path) -> list[str]:
        dry = ["--dry-run"] if context.dry else []
        return [sys.executable, "-m", f"benchmarks.gpu.{name}", *arguments, *dry, "--folder", str(folder)]

    return command


# CMake leaves the kernels out where it finds no nvcc, and the steps after it would then compare nothing. What was installed is
# looked at by a fresh process.
_INSTALL = """
import subprocess, sys
look = "from metaindex._native import core; raise SystemExit(0 if core.cuda_built() else 'metaindex was built without CUDA')"
sys.exit(subprocess.run(sys.argv[1:]).returncode or subprocess.run([sys.argv[1], "-c", look]).returncode)
"""


def _machine(context: Context, folder: Path) -> list[str]:
    return [*_module("machine")(context, folder), "--commit", context.commit]


def _wheels(context: Context, folder: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu.wheelhouse", "install", str(context.wheelhouse)]


def _build(context: Context, folder: Path) -> list[str]:
    flags = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--verbose"]
    return [sys.executable, "-c", _INSTALL, sys.executable, "-m", "pip", "install", *flags, "--editable", "."]


def _pytest(*arguments: str) -> Command:
    def command(context: Context, folder: Path) -> list[str]:
        return [sys.executable, "-m", "pytest", "-q", "-rfEs", *arguments, f"--junitxml={folder / _JUNIT}"]

    return command


def _watched(tool: str) -> Command:
    def command(context: Context, folder: Path) -> list[str]:
        flags = ["--tool", tool, "--error-exitcode", "9", "--print-limit", "30"]
        return [sanitizer() or "compute-sanitizer", *flags, *_module("entries")(context, folder)]

    return command


def _race(case: str) -> Command:
    def command(context: Context, folder: Path) -> list[str]:
        return [
            *_module("race", case)(context, folder),
            *("--seed", str(context.seed), "--rounds", str(context.rounds), "--contestants", context.contestants),
        ]

    return command


def by_tests(done: Done) -> Verdict:
    """Good where pytest was, and at least one test ran: a file of skips tests nothing."""
    report = done.folder / _JUNIT
    if not report.exists():
        return Verdict(False, by_exit_code(done).why or "no report")
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")}
    ran = counts["tests"] - counts["skipped"]
    why = f"{ran} ran, {counts['failures']} failed, {counts['errors']} errors, {counts['skipped']} skipped"
    return Verdict(by_exit_code(done).ok and ran > 0, f"{done.why}: {why}" if done.why else why)


def by_findings(done: Done) -> Verdict:
    """Good where compute-sanitizer summed up to nothing found and the run under it was good."""
    counts = [int(count) for found in _SUMMARY.finditer(done.text) for count in found.groups() if count]
    if done.why or not counts:
        return Verdict(False, f"no summary; {by_exit_code(done).why or 'nothing was watched'}")
    if any(counts):
        return Verdict(False, f"{max(counts)} findings; the text is kept")
    return by_rows(done)


def _no_sanitizer() -> str | None:
    return None if sanitizer() else "compute-sanitizer is neither on the PATH nor in /usr/local/cuda/bin"


# Triton's apart, since most of their time goes into compiling.
_TESTS = (
    ("gpu-tests", "the facade and the operations on a GPU, by CUDA", 200, "tests/gpu", "-m", "gpu", "-k", "not triton"),
    ("gpu-tests-triton", "the same by Triton", 400, "tests/gpu", "-m", "gpu", "-k", "triton"),
    ("contract-tests", "CPU scorers against the reference", 200, "tests/contract", "-m", "not gpu"),
    ("contract-tests-cuda", "CUDA against the reference", 200, "tests/contract", "-m", "gpu", "-k", "cuda"),
    ("contract-tests-triton", "Triton against the reference", 400, "tests/contract", "-m", "gpu", "-k", "triton"),
)
_TOOLS = {
    "memcheck": "reads and writes out of bounds",
    "racecheck": "races in shared memory",
    "synccheck": "barriers that not all threads reach",
    "initcheck": "reads of memory that nothing wrote",
}
_RACE_SECONDS = {"corpus-10k": 150, "tok64-1M": 240, "me-16-64": 240, "me-16-64-q64": 240, "budget": 120}
_RACES = tuple(
    Step(f"race-{name}", case.about, _race(name), _RACE_SECONDS.get(name, 120), judge=by_rows, race=True)
    for name, case in CASES.items()
)

STEPS: tuple[Step, ...] = (
    Step("machine", "the card, driver, clocks and versions", _machine, 30, judge=by_rows),
    Step("wheelhouse", "other libraries' wheels, offline; torch stays", _wheels, 30, dry=False),
    Step(
        "build",
        "metaindex and its CUDA code, offline",
        _build,
        180,
        dry=False,
        environment={"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)},
    ),
    Step(
        "entries", "every kernel entry once, against the reference", _module("entries"), 240, judge=by_rows, environment=_CACHE
    ),
    *(
        Step(name, about, _pytest(*arguments), expects, judge=by_tests, dry=False, environment=_CACHE)
        for name, about, expects, *arguments in _TESTS
    ),
    *(
        Step(
            tool,
            f"compute-sanitizer: {what}, in every kernel entry",
            _watched(tool),
            180,
            judge=by_findings,
            missing=_no_sanitizer,
            dry=False,
            environment=_WATCHED,
        )
        for tool, what in _TOOLS.items()
    ),
    Step("roofs", "what the card can do", _module("roofs"), 40, judge=by_rows),
    *_RACES[:8],
    *(
        Step(f"first-{backend}", f"first calls of {backend}, compiled anew", _module("first", backend), 120, judge=by_rows)
        for backend in ("triton", "cuda")
    ),
    *_RACES[8:],
)
