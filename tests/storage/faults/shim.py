"""The preloaded shim from Python: built here, controlled through ctypes from the process that runs with it."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

FAIL, SHORT, KILL_BEFORE, KILL_AFTER = 1, 2, 3, 4
CHANGES, READS = "CNWTSDREUXML", "OP"
Tree = dict[str, bytes | None]  # a folder as paths to contents, None for folders; outer folders first


def compile_to(folder: Path) -> Path:
    """Build the shim. A compiler is part of what the project needs, so its absence is an error."""
    target = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(target), str(source), "-pthread", "-ldl"]
    subprocess.run(command, check=True)
    return target


class Shim:
    """Only in a process that was started with the shim preloaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_disarm.restype = ctypes.c_long
        self._library.shim_log.restype = ctypes.c_void_p
        self._library.shim_trace.restype = ctypes.c_void_p

    def watch(self, root: Path) -> None:
        """Count, fail and record what is done below ``root`` from now on."""
        self._library.shim_root(os.fsencode(root))

    def arm(self, kinds: str, at: int = 0, action: int = 0, code: int = 0, sticky: bool = False) -> None:
        """Count calls of these kinds; the one numbered ``at``, from 1, meets the fault, if sticky all later ones too."""
        self._library.shim_arm(kinds.encode(), ctypes.c_long(at), action, code, sticky)

    def disarm(self) -> str:
        """Stop counting; the kinds of the calls that were counted, in order."""
        count = self._library.shim_disarm()
        return ctypes.string_at(self._library.shim_log(), count).decode()

    def record(self) -> None:
        self._library.shim_record(1)

    def mark(self, number: int) -> None:
        self._library.shim_mark(ctypes.c_uint64(number))

    def trace(self) -> bytes:
        """What was recorded; ends the recording."""
        self._library.shim_record(0)
        size = ctypes.c_size_t()
        data = self._library.shim_trace(ctypes.byref(size))
        return ctypes.string_at(data, size.value)


class Outcome(NamedTuple):
    """What a forked child returned, or ``error``, the traceback it ended with, or ``killed``."""

    value: Any = None
    error: str | None = None
    killed: bool = False


def in_child(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """``function`` in a fork of this process, which stays as it was."""
    return collect(start(function, *arguments))


def start(function: Callable[..., Any], *arguments: Any) -> tuple[int, int]:
    """Start ``function`` in a fork; ``collect`` waits for it."""
    heard, told = os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        return child, heard
    gc.disable()  # it ends soon, and a collection would copy the pages of all objects
    try:
        os.close(heard)
        try:
            answer = Outcome(function(*arguments))
        except BaseException:
            answer = Outcome(error=traceback.format_exc()[-4000:])
        with os.fdopen(told, "wb") as stream:
            stream.write(pickle.dumps(answer))
    finally:
        os._exit(0)


def collect(started: tuple[int, int]) -> Outcome:
    child, heard = started
    with os.fdopen(heard, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        died_of = os.WTERMSIG(status)
        return Outcome(killed=True) if died_of == signal.SIGKILL else Outcome(error=f"the process died of signal {died_of}")
    answer = pickle.loads(data)
    assert isinstance(answer, Outcome)
    return answer


def shared_out(function: Callable[[list[Any]], list[Any]], items: list[Any], workers: int = 2) -> list[Any]:
    """``function`` over parts of ``items`` in as many forks; the results in one list, the parts one after another."""
    started = [start(function, items[worker::workers]) for worker in range(workers)]
    outcomes = [collect(one) for one in started]
    for outcome in outcomes:
        if outcome.error or outcome.killed:
            raise RuntimeError(f"a worker failed: {outcome.error or 'killed'}")
    return [result for outcome in outcomes for result in outcome.value]


def read_tree(folder: Path) -> Tree:
    """All that lies below a folder."""
    tree: Tree = {}
    for path, folders, files in os.walk(folder):
        base = os.path.relpath(path, folder)
        tree.update({os.path.normpath(f"{base}/{name}"): None for name in sorted(folders)})
        for name in sorted(files):
            tree[os.path.normpath(f"{base}/{name}")] = Path(path, name).read_bytes()
    return tree


def write_tree(folder: Path, tree: Tree) -> None:
    """A new folder that holds ``tree``."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for name, data in tree.items():
        path = f"{folder}/{name}"
        if data is None:
            os.mkdir(path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, data)
            os.close(fd)
