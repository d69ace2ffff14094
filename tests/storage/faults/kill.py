"""Kill -9 at random moments: a child writes, acknowledging each call; what it acknowledged must stand, all else be absent.

``python -m tests.storage.faults.kill --count 10000`` runs for long and prints counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from metaindex import MetaIndex
from tests.storage.faults.model import (
    TOKENS,
    Change,
    Entry,
    Model,
    applied,
    expected,
    leftovers,
    new_index,
    opened,
    perform,
    summary,
    view,
)

CODECS = ("int8", "float16")
_FRESH_AFTER = 250  # kills, so that neither folder nor model grows for ever
_CALLS = 5  # as many as a child makes at most, about
_MOST_DOCUMENTS = 24


def changes(rng: random.Random, model: Model, first: int) -> Iterator[Change]:
    """Seeded changes without end; ``first`` is the smallest id and seed that was not used yet."""
    while True:
        kinds = ["add", "add", "upsert", "update_metadata", "compact", "purge"] + ["remove"] * (2 + len(model) // 8)
        kind = rng.choice(kinds)
        count = rng.randint(1, 3)
        chosen = rng.sample(sorted(model), min(count, len(model)))
        if kind == "purge" and rng.random() < 0.5:
            continue
        if kind in ("compact", "purge"):
            change = Change("compact", purge=kind == "purge")
        elif kind in ("remove", "update_metadata"):
            if not chosen:
                continue
            change = Change(kind, tuple(model[id_]._replace(metadata=_metadata(rng)) for id_ in chosen))
        elif kind == "upsert" and chosen:
            made = [Entry(id_, first + n, rng.randint(1, TOKENS), _metadata(rng)) for n, id_ in enumerate(chosen)]
            made.append(Entry(first + count, first + count, rng.randint(1, TOKENS), _metadata(rng)))
            change = Change("upsert", tuple(made))
        elif len(model) > _MOST_DOCUMENTS:
            continue
        else:
            made = [Entry(first + n, first + n, rng.randint(1, TOKENS), _metadata(rng)) for n in range(count)]
            change = Change("add", tuple(made))
        first += count + 1
        model = applied(model, change)
        yield change


def _metadata(rng: random.Random) -> dict[str, int] | None:
    return {"n": rng.randrange(1000)} if rng.random() < 0.6 else None


def _write_until_killed(path: Path, model: Model, seed: int, first: int, told: int) -> None:
    """In the child: each change is told before it starts, and once more when the call has returned."""
    try:
        index = MetaIndex.open(path, "r+", num_threads=1)
        for change in changes(random.Random(seed), model, first):
            os.write(told, _message("begin", change))
            perform(index, change)
            os.write(told, _message("done", None))
    except BaseException:
        os.write(told, _message("error", traceback.format_exc()[-3000:]))
    finally:
        os._exit(1)


def _message(kind: str, value: object) -> bytes:
    # Shorter than PIPE_BUF, so a message is written as a whole or not at all.
    data = pickle.dumps((kind, value))
    assert len(data) < 4000
    return len(data).to_bytes(4, "little") + data


def _messages(data: bytes) -> Iterator[tuple[str, object]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        yield pickle.loads(data[at + 4 : at + 4 + size])
        at += 4 + size


def _killed_child(path: Path, model: Model, seed: int, first: int, delay: float) -> list[tuple[str, object]]:
    """What a child told until it was killed, ``delay`` seconds after it started."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _write_until_killed(path, model, seed, first, told)
    os.close(told)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(heard, "rb") as stream:
        messages = list(_messages(stream.read()))
    if not os.WIFSIGNALED(status) and not any(kind == "error" for kind, _ in messages):
        messages.append(("error", f"the child ended by itself, status {status}"))
    return messages


def cycle(path: Path, codec: str, model: Model, seed: int, first: int, span: float, counts: Counter[str]) -> Model:
    """One kill, and all checks after it. Returns what stands now.

    Raises:
        AssertionError: a write that was acknowledged is missing, one was half made, or the index does not open.
    """
    where = f"codec {codec}, seed {seed}"
    delay = random.Random(f"delay {seed}").uniform(0, span)
    flying: Change | None = None
    for kind, value in _killed_child(path, model, seed, first, delay):
        assert kind != "error", f"{where}: {value}"
        if kind == "begin":
            assert isinstance(value, Change)
            flying = value
        elif flying is not None:
            counts[f"acknowledged {flying.kind}"] += 1
            model, flying = applied(model, flying), None
    after = model if flying is None else applied(model, flying)
    wanted = expected(model, codec), expected(after, codec)
    with opened(path) as reader:
        found = view(reader)
    assert found in wanted, f"{where}: {flying} in flight, found {summary(found)}, expected {[*map(summary, wanted)]}"
    with opened(path, "r+") as writer:
        assert view(writer) == found, f"{where}: a writer sees something else"
    assert not leftovers(path), f"{where}: {flying} in flight left {leftovers(path)}"
    counts["kills"] += 1
    if flying is None:
        counts["kills between calls"] += 1
    else:
        outcome = "made" if wanted[0] != wanted[1] and found == wanted[1] else "absent" if wanted[0] != wanted[1] else "neutral"
        counts[f"killed in {flying.kind}, {outcome}"] += 1
    return after if found == wanted[1] else model


def _seconds(folder: Path) -> float:
    """How long a child takes here to open an index and make a few calls."""

    def write() -> None:
        with MetaIndex.open(folder / "trial", "r+", num_threads=1) as index:
            for number in range(_CALLS):
                perform(index, Change("add", (Entry(number, number, TOKENS, {"n": number}),)))

    new_index(folder / "trial", CODECS[0]).close()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            write()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    shutil.rmtree(folder / "trial")
    return time.monotonic() - started


def run(count: int, seed: int, folder: Path, stretch: float = 1) -> Counter[str]:
    """``count`` kills of children that write to indexes in ``folder``, each after ``stretch`` times the time that a few calls
    take, at most; returns what was counted."""
    counts: Counter[str] = Counter()
    model: Model = {}
    gc.collect()
    gc.freeze()  # or every child would copy the pages of all objects when it collects
    try:
        span = stretch * _seconds(folder)
        for number in range(count):
            if number % _FRESH_AFTER == 0:
                codec, model = CODECS[number // _FRESH_AFTER % len(CODECS)], {}
                path = folder / f"index-{number}"
                new_index(path, codec).close()
            first = 1000 * (number % _FRESH_AFTER)
            model = cycle(path, codec, model, seed + number, first, span, counts)
            counts["documents seen"] += len(model)
            if number % _FRESH_AFTER == _FRESH_AFTER - 1:
                shutil.rmtree(path)
    finally:
        gc.unfreeze()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a writer at random moments, over and over.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="append the counts to this file, as one line of JSON")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        counts = run(arguments.count, arguments.seed, Path(folder))
    found = {"seed": arguments.seed, "seconds": round(time.monotonic() - started, 1), **dict(sorted(counts.items()))}
    for name, value in found.items():
        print(f"{name:40} {value}")
    if arguments.report:
        with arguments.report.open("a") as report:
            report.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
