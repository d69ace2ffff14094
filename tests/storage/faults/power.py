"""The power goes after every file call of an operation; runs in a process with the shim preloaded."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from metaindex import MetaIndex
from tests.storage.faults import shim
from tests.storage.faults.disk import CHOICES, Disk, calls
from tests.storage.faults.model import Model, View, applied, expected, perform
from tests.storage.faults.operations import INDEX, LATER, Operation
from tests.storage.faults.shim import Tree
from tests.storage.faults.steps import ENOUGH, Bench, look, short


class Survivor(NamedTuple):
    """A folder as the power left it after ``point`` calls of which ``done`` operations had returned."""

    tree: Tree
    point: int
    choice: str
    done: int


def _traced(bench: Bench, around: Path) -> bytes:
    """In a child: the operation, a further write on the same handle, and the trace with a mark after each."""
    bench.control.watch(around)
    bench.control.record()
    operation = bench.operation
    index = None if operation.base is None else MetaIndex.open(around / INDEX, "r+", num_threads=1)
    made = operation.run(index, around, bench.codec)
    bench.control.mark(1)
    index = made if index is None else index
    perform(index, LATER)
    bench.control.mark(2)
    index.close()
    return bench.control.trace()


def survivors(bench: Bench, counts: Counter[str]) -> list[Survivor]:
    """All different folders that a power loss may leave, by what stands in them and what had returned."""
    around = bench.folder / "traced"
    shim.write_tree(around, bench.base)
    disk = Disk(around)
    outcome = shim.in_child(_traced, bench, around)
    assert outcome.error is None, outcome.error
    plain = shim.read_tree(around)
    found: dict[bytes, Survivor] = {}
    done = 0
    for point, call in enumerate([None, *calls(outcome.value)]):
        if call is not None:
            disk.apply(call)
            done = call.a if call.kind == "A" else done
        counts["points"] += 1
        for choice in CHOICES:
            tree = disk.survivor(choice)
            counts["states"] += 1
            if tree is not None:
                found.setdefault(_key(tree, done), Survivor(tree, point, choice.name, done))
    # The trace misses nothing: with all of it kept, the disk holds what the folder holds.
    rebuilt = disk.survivor(CHOICES[1])
    assert rebuilt is not None
    differing = sorted(name for name in plain.keys() | rebuilt.keys() if plain.get(name, "") != rebuilt.get(name, ""))
    assert not differing, f"the trace does not rebuild {differing}"
    shutil.rmtree(around)
    counts["different states"] += len(found)
    return list(found.values())


def _key(tree: Tree, done: int) -> bytes:
    digest = hashlib.blake2b(str(done).encode())
    for name, data in sorted(tree.items()):
        digest.update(f"{name} {-1 if data is None else len(data)} ".encode(errors="surrogateescape") + (data or b""))
    return digest.digest()


def run(operation: Operation, codec: str, folder: Path) -> tuple[Counter[str], list[str]]:
    """How many states a power loss in one operation may leave, and what is wrong with them."""
    counts: Counter[str] = Counter()
    bench = Bench(operation, codec, folder)
    found = survivors(bench, counts)
    return counts, shim.shared_out(partial(_check_all, bench), found)


def _check_all(bench: Bench, found: list[Survivor]) -> list[str]:
    wrong: list[str] = []
    around = bench.folder / f"lost-{os.getpid()}"
    for survivor in found:
        if len(wrong) >= ENOUGH:
            break
        shim.write_tree(around, survivor.tree)
        where = f"{bench.operation.name}: power lost after {survivor.point} calls, {survivor.done} returned, {survivor.choice}"
        try:
            seen = look(around, list(bench.states))
        except Exception as error:
            wrong.append(f"{where}: {type(error).__name__}: {error}")
            continue
        for name, (shown, left) in seen.items():
            wanted = _wanted(bench, name, survivor.done)
            if shown not in wanted:
                wrong.append(f"{where}: {name} holds {short(shown)}, expected one of {[*map(short, wanted)]}")
            wrong += [f"{where}: {name} has {one!r} left" for one in left]
    shutil.rmtree(around, ignore_errors=True)
    return wrong


def _wanted(bench: Bench, name: str, done: int) -> list[View | None]:
    """What was acknowledged, and what the call in flight would make of it."""
    before, after = bench.states[name]
    stages: list[Model | None] = [before, after, after]
    if name == INDEX:
        assert after is not None
        stages[2] = applied(after, LATER)
    return [None if model is None else expected(model, bench.codec) for model in stages[done : done + 2]]
