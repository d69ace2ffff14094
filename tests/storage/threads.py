"""Sixteen searching threads and a reading process beside a writer and a compactor, all held to a plain model.

``python -m tests.storage.threads --seconds 3600`` runs them for an hour. What is written follows from a seed alone, so every
process can work out what the index held after each write. A search notes which write had returned before it was asked, and
which had begun when it was answered: its answer must be that of one of the states in between.
"""

from __future__ import annotations

import argparse
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import MetaIndex
from metaindex.types import Levels
from tests.storage.model import Model

SEARCHERS = 16
_DIM, _TOKENS, _CODEC = 4, 6, "float16"
_LEAST, _MOST = 6, 24
_WRITES_PER_COMPACTION = 7
_PACKED = struct.Struct("qqq")
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
Change = tuple[str, list[Any], list[NDArray], list[Any]]


def tokens(rng: np.random.Generator, most: int) -> NDArray[np.float32]:
    """Small integers: scores are exact, and equal ones are common."""
    return rng.integers(-2, 3, (int(rng.integers(1, most + 1)), _DIM)).astype(np.float32)


class Case:
    """A question, and what a model answers."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(10_000 + number)
        self.queries = [tokens(rng, 3) for _ in range(int(rng.integers(1, 3)))]
        self.budget = (int(rng.integers(1, 4)), int(rng.integers(1, _TOKENS + 1)))
        self.k = int(rng.integers(1, 12))
        self.filter: Any = None
        if number % 4 == 1:
            self.filter = {"group": int(rng.integers(3))}
        elif number % 4 == 2:
            self.filter = rng.choice(400, 200, replace=False).tolist()

    def ask(self, index: MetaIndex) -> tuple[Any, Any]:
        found = index.search(self.queries, self.k, budget=self.budget, filter=self.filter)
        return found.ids.tolist(), found.scores.tolist()

    def answer(self, model: Model) -> tuple[Any, Any]:
        names, scores = model.ids, model.scores(self.queries, *self.budget)
        allowed = names
        if isinstance(self.filter, dict):
            allowed = model.matching(self.filter)
        elif self.filter is not None:
            allowed = self.filter
        let_through = set(allowed)
        rows = np.array([at for at, id_ in enumerate(names) if id_ in let_through], dtype=np.int64)
        ids, best = [], []
        for of_query in scores:
            kept = rows[np.lexsort((rows, -of_query[rows]))][: self.k].tolist()
            short = self.k - len(kept)
            ids.append([names[row] for row in kept] + [-1] * short)
            best.append(of_query[kept].tolist() + [-np.inf] * short)
        return ids, best


class Listing:
    """Which documents there are, and their metadata."""

    wanted = tuple(range(0, 400, 3))

    def ask(self, index: MetaIndex) -> Any:
        return [(found.id, found.tokens.tolist(), found.metadata) for found in index.get(self.wanted, missing="ignore")]

    def answer(self, model: Model) -> Any:
        known = [(id_, model.documents[id_]) for id_ in self.wanted if id_ in model.documents]
        return [(id_, document.tokens.tolist(), document.metadata) for id_, document in known]


class Order:
    """The ids in the order of addition."""

    def ask(self, index: MetaIndex) -> Any:
        return list(index)

    def answer(self, model: Model) -> Any:
        return model.ids


class Held:
    """All documents and their metadata on a snapshot that was taken some searches ago."""

    def ask(self, index: MetaIndex) -> Any:
        snapshot = index._store.snapshot
        for case in CASES[:6]:
            case.ask(index)
        rows = snapshot.order
        return list(zip(snapshot.ids_at(rows).tolist(), index._store.metadata(snapshot, rows), strict=True))

    def answer(self, model: Model) -> Any:
        return [(id_, document.metadata) for id_, document in model.documents.items()]


CASES: tuple[Any, ...] = (*map(Case, range(24)), Listing(), Order(), Held())


class History:
    """The states of the index by the number of writes, worked out as they are asked for."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._model = Model(_CODEC, _DIM, Levels.doubling(_TOKENS))
        self._states: deque[tuple[Model, dict[int, Any]]] = deque([(self._model.copy(), {})])
        self._first = 0
        self._lock = threading.RLock()

    def advance(self) -> Change:
        """The next write; its state stands as the last one from here on."""
        with self._lock:
            change = what, ids, vectors, metadata = self._next()
            if what == "remove":
                self._model.remove(ids)
            elif what == "update":
                self._model.update_metadata(ids, metadata)
            else:
                self._model.add(ids, vectors, metadata)
            self._states.append((self._model.copy(), {}))
            return change

    def _next(self) -> Change:
        rng, standing = self._rng, self._model.ids
        picked = [standing[at] for at in rng.permutation(len(standing))[:3]]
        what = ("add", "upsert", "remove", "update")[rng.integers(4)]
        if len(standing) < _LEAST:
            what = "add"
        elif len(standing) > _MOST:
            what = "remove"
        if what == "add":
            free = [id_ for id_ in rng.permutation(400).tolist() if id_ not in self._model.documents]
            picked = free[: int(rng.integers(1, 5))]
        vectors = [tokens(rng, _TOKENS) for _ in picked]
        return what, picked, vectors, [{"group": int(rng.integers(3)), "version": int(rng.integers(10**6))} for _ in picked]

    def reach(self, number: int) -> None:
        with self._lock:
            while self._first + len(self._states) <= number:
                self.advance()

    def forget(self, oldest: int) -> None:
        """The states before ``oldest`` are not asked for again."""
        with self._lock:
            while self._first < oldest and len(self._states) > 1:
                self._states.popleft()
                self._first += 1

    def matching(self, case: int, answer: Any, states: range) -> set[int]:
        """Which of ``states`` give ``answer``."""
        with self._lock:
            return {number for number in states if self._answer(number, case) == answer}

    def _answer(self, number: int, case: int) -> Any:
        model, answers = self._states[number - self._first]
        if case not in answers:
            answers[case] = CASES[case].answer(model)
        return answers[case]


class Progress:
    """How many writes have begun and how many have returned, and whether to stop: in memory that processes share."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _PACKED.size)

    def __getitem__(self, at: int) -> int:
        # Eight aligned bytes, read and written at once by all processors that this runs on.
        return memoryview(self._shared).cast("q")[at]

    def __setitem__(self, at: int, value: int) -> None:
        memoryview(self._shared).cast("q")[at] = value


BEGUN, RETURNED, STOP = range(3)


class Run:
    """All threads of one run; ``wrong`` tells what went wrong, ``counts`` how much was done."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed, self.path = seed, folder / "index"
        self.shared = folder / "progress"
        self.shared.write_bytes(_PACKED.pack(0, 0, 0))
        self.progress, self.history = Progress(self.shared), History(seed)
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._asked = [2**62] * SEARCHERS  # the oldest state that each searcher may still be shown
        self._due = threading.Semaphore(0)

    def __call__(self, seconds: float) -> None:
        with MetaIndex(_DIM, _TOKENS, path=self.path, codec=_CODEC, num_threads=2, fields=["group"]) as index:
            works: list[Callable[[], None]] = [lambda: self._write(index), lambda: self._compact(index)]
            works += [lambda at=at: self._search(index, at) for at in range(SEARCHERS)]  # type: ignore[misc]
            threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
            command = [sys.executable, "-m", "tests.storage.threads", "--read", str(self.path.parent), "--seed", str(self.seed)]
            before = sys.getswitchinterval()
            sys.setswitchinterval(1e-4)  # or a writer waits for sixteen others after each call of the system
            reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                for thread in threads:
                    thread.start()
                self._wait(threads, reader, seconds)
            finally:
                self.progress[STOP] = 1
                self._due.release()
                for thread in threads:
                    thread.join()
                said, _ = reader.communicate()
                sys.setswitchinterval(before)
            self.counts["looks of the reading process"] = int(said or 0)
            if reader.returncode:
                self.wrong.append(f"the reading process ended with {reader.returncode}")
            if list(index) != self.history._model.ids:
                self.wrong.append("at the end the index does not hold what it should")

    def _wait(self, threads: list[threading.Thread], reader: subprocess.Popen[str], seconds: float) -> None:
        """Until time is up or something is wrong."""
        stop = time.monotonic() + seconds
        for thread in threads:
            while thread.is_alive() and time.monotonic() < stop and not self.wrong and reader.poll() is None:
                thread.join(0.1)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _write(self, index: MetaIndex) -> None:
        while not self.progress[STOP]:
            with self.history._lock:  # nobody sees a state that is not counted, or counts one that is not there
                what, ids, vectors, metadata = self.history.advance()
                self.progress[BEGUN] += 1
            if what == "remove":
                index.remove(ids)
            elif what == "update":
                index.update_metadata(ids, metadata)
            else:
                (index.add if what == "add" else index.upsert)(vectors, ids, metadata)
            self.progress[RETURNED] += 1
            self.counts["writes"] += 1
            if self.counts["writes"] % _WRITES_PER_COMPACTION == 0:
                self._due.release()
                self.history.forget(min(self.progress[RETURNED], *self._asked))

    def _compact(self, index: MetaIndex) -> None:
        while self._due.acquire() and not self.progress[STOP]:
            index.compact()
            index.memory()
            self.counts["compactions"] += 1

    def _search(self, index: MetaIndex, at: int) -> None:
        rng = np.random.default_rng(at)
        done = 0
        while not self.progress[STOP]:
            case = int(rng.integers(len(CASES)))
            self._asked[at] = 0  # until it is known, nothing may be forgotten
            self._asked[at] = oldest = self.progress[RETURNED]
            answer = CASES[case].ask(index)
            newest = self.progress[BEGUN]
            if not self.history.matching(case, answer, range(oldest, newest + 1)):
                self.wrong.append(f"case {case}: {answer} was never right from write {oldest} to {newest}")
                break
            self._asked[at] = 2**62
            done += 1
        self._asked[at] = 2**62
        with self.history._lock:
            self.counts["searches"] += done


def read(folder: Path, seed: int) -> int:
    """In a process of its own: what it sees between two refreshes is one state, and none older than when it refreshed."""
    progress, history, rng, looks = Progress(folder / "progress"), History(seed), np.random.default_rng(seed), 0
    while not progress[STOP]:
        # Half of the time it is closed: a compaction drops history only while nobody else reads.
        oldest = progress[RETURNED]
        with MetaIndex.open(folder / "index", num_threads=1) as index:
            seen = [_look(index, progress, rng, oldest), *(_look(index, progress, rng, None) for _ in range(2))]
        for oldest, newest, answers in seen:
            history.reach(newest)
            history.forget(oldest)
            states = set(range(oldest, newest + 1))
            for case, answer in answers:
                states &= history.matching(case, answer, range(oldest, newest + 1))
                looks += 1
                assert states, f"case {case}: {answer} was never right from write {oldest} to {newest}"
    return looks


def _look(
    index: MetaIndex, progress: Progress, rng: np.random.Generator, oldest: int | None
) -> tuple[int, int, list[tuple[int, Any]]]:
    """Answers of one state, with the oldest and the newest that it may be: that of the opening, or of a refresh here."""
    if oldest is None:
        oldest = progress[RETURNED]
        index.refresh()
    newest = progress[BEGUN]
    cases = rng.integers(len(CASES), size=int(rng.integers(1, 9))).tolist()
    return oldest, newest, [(case, CASES[case].ask(index)) for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(description="Searching threads beside a writer, held to a plain model.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(read(arguments.read, arguments.seed))
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        run = Run(Path(folder), arguments.seed)
        run(arguments.seconds)
    print(dict(run.counts), run.wrong or "nothing wrong")
    sys.exit(bool(run.wrong))


if __name__ == "__main__":
    main()
