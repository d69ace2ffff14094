"""The process that runs with the shim preloaded: started once, it forks a child for every case.

A request is one line of JSON, a list of the module, the operation, the codec and a folder; so is the answer.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.storage.faults import shim


class Server:
    """The other end, for tests."""

    def __init__(self, library: Path) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", "tests.storage.faults.server"]
        root = Path(__file__).parents[3]
        self._process = subprocess.Popen(
            command, env=environment, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, module: str, operation: str, codec: str, folder: Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([module, operation, codec, str(folder)]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the process with the shim ended ({self._process.wait()})"
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def warm_up() -> None:
    """What is imported and made at first use is made here, once, and not in every child."""
    from tests.storage.faults.model import Change, Entry, new_index, perform, view

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index")
        with new_index(path, "int8") as index:
            perform(index, Change("add", (Entry(0, 0, 2, {"n": 0}),)))
            view(index)
            perform(index, Change("compact", purge=True))
            index.save(os.path.join(folder, "saved"))


def serve() -> None:
    from tests.storage.faults import power, steps
    from tests.storage.faults.operations import BY_NAME

    modules = {"steps": steps.run, "power": power.run}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a child prints must not come between the answers
    warm_up()
    gc.collect()
    gc.freeze()  # or every child would copy the pages of all objects when it collects
    for line in sys.stdin:
        module, operation, codec, folder = json.loads(line)
        started = time.monotonic()
        try:
            counts, wrong = modules[module](BY_NAME[operation], codec, Path(folder))
        except Exception:
            counts, wrong = Counter(), [traceback.format_exc()]
        seconds = round(time.monotonic() - started, 2)
        print(json.dumps({"counts": counts, "wrong": wrong, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    assert hasattr(shim.Shim()._library, "shim_arm"), "start this with LD_PRELOAD"
    serve()
