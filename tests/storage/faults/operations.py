"""The calls that change files, each with what an index holds before and after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from metaindex import MetaIndex
from tests.storage.faults.model import Change, Entry, Model, applied, new_index, perform

INDEX, COPY = "index", "copy"
LATER = Change("add", (Entry(900, 900, 2, {"later": True}),))

_TWO = (Entry(10, 10, 3), Entry(11, 11, 4))
_LARGE = tuple(Entry(20 + n, 20 + n, 1 + n % 4, {"n": n} if n % 3 else None) for n in range(40))
_FEW = [
    Change("add", (Entry(0, 0, 4, {"lang": "en"}), Entry(1, 1, 2), Entry(2, 2, 1))),
    Change("add", (Entry(3, 3, 3, {"lang": "de"}), Entry(4, 4, 4))),
]
BASES: dict[str, list[Change]] = {
    "few": _FEW,
    "tail": [Change("add", (Entry(n, n, 1 + n, {"n": n} if n else None),)) for n in range(3)],
    "holes": [*_FEW, Change("remove", (Entry(1, 1, 2), Entry(3, 3, 3)))],
    "other": [Change("add", (Entry(50, 50, 1), Entry(51, 51, 4, {"old": 1})))],
}


class Operation(NamedTuple):
    """One call. ``base`` is what the index holds first, None where the call creates it; ``change`` what it does to the index;
    ``copies`` whether it writes to a folder beside it, where ``replaced`` stands first."""

    name: str
    base: str | None
    run: Callable[[Any, Path, str], MetaIndex | None]
    change: Change | None = None
    copies: bool = False
    replaced: str | None = None


class States(NamedTuple):
    """What stands in a folder before and after the operation; None for nothing."""

    before: Model | None
    after: Model | None


def model_of(base: str) -> Model:
    model: Model = {}
    for change in BASES[base]:
        model = applied(model, change)
    return model


def build(base: str, path: Path, codec: str) -> None:
    with new_index(path, codec) as index:
        for change in BASES[base]:
            perform(index, change)


def states(operation: Operation) -> dict[str, States]:
    """By folder name, what the operation changes."""
    if operation.base is None:
        return {INDEX: States(None, {})}
    before = model_of(operation.base)
    after = before if operation.change is None else applied(before, operation.change)
    found = {INDEX: States(before, after)}
    if operation.copies:
        found[COPY] = States(None if operation.replaced is None else model_of(operation.replaced), before)
    return found


def _changing(name: str, base: str, change: Change) -> Operation:
    return Operation(name, base, lambda index, folder, codec: perform(index, change), change)


OPERATIONS = [
    Operation("create", None, lambda index, folder, codec: new_index(folder / INDEX, codec)),
    _changing("add", "few", Change("add", _TWO)),
    _changing("add with metadata", "few", Change("add", (Entry(10, 10, 3, {"lang": "fr", "year": 2024}), Entry(11, 11, 1)))),
    _changing("add many", "few", Change("add", _LARGE)),
    _changing("add that merges", "tail", Change("add", _TWO)),
    _changing("upsert", "few", Change("upsert", (Entry(1, 31, 4, {"new": 1}), Entry(12, 32, 2)))),
    _changing("remove", "few", Change("remove", (Entry(0, 0, 4), Entry(4, 4, 4)))),
    Operation("save", "holes", lambda index, folder, codec: index.save(folder / COPY), copies=True),
    Operation(
        "save over", "holes", lambda index, folder, codec: index.save(folder / COPY, overwrite=True), None, True, "other"
    ),
    _changing("update metadata", "few", Change("update_metadata", (Entry(0, 0, 4, {"lang": "it"}), Entry(1, 1, 2, {"x": 1})))),
    _changing("drop metadata", "few", Change("update_metadata", (Entry(0, 0, 4), Entry(3, 3, 3)))),
    _changing("compact", "holes", Change("compact")),
    _changing("compact and purge", "holes", Change("compact", purge=True)),
    Operation("snapshot", "holes", lambda index, folder, codec: index.snapshot(folder / COPY), copies=True),
]
BY_NAME = {operation.name: operation for operation in OPERATIONS}
