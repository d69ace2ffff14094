"""The process of one engine: builds, then searches when it is told to. Speaks JSON lines over its standard streams."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.engine import Built, Engine, bytes_below, resident_bytes


def main() -> None:
    module, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    documents, tuning, queries = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("documents", "tuning", "queries"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    with tempfile.TemporaryDirectory(dir=folder) as own:
        try:
            loaded = importlib.import_module(module)
            engine: Engine = loaded.engine()
            before, started = resident_bytes(), time.perf_counter()
            engine.build(documents, np.array(tuning), Path(own), threads)
            seconds = time.perf_counter() - started
            settings = engine.settings()
            version = importlib.metadata.version(loaded.PACKAGE)
            disk = bytes_below(Path(own))
            answer(asdict(Built(seconds, resident_bytes() - before, disk, tuple(settings), version)))
        except Exception as error:
            traceback.print_exc()
            answer({"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
            return
        for line in sys.stdin:
            asked = json.loads(line)
            taken, found = [], []
            try:
                for query in queries[asked["first"] : asked["last"]]:
                    started = time.perf_counter()
                    found.append([int(id_) for id_ in engine.search(np.array(query), asked["k"], settings[asked["setting"]])])
                    taken.append(time.perf_counter() - started)
            except Exception as error:
                traceback.print_exc()
                answer({"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
                continue
            answer({"seconds": taken, "ids": found, "memory": resident_bytes() - before})


if __name__ == "__main__":
    main()
