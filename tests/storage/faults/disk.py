"""What a disk may hold after the power went, rebuilt from a trace of file calls.

A write lasts from the sync of its file on, a name made, moved or removed from the sync of the folder it now stands in.
What was not synced may be there, be missing, or be there in part, in any order.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.storage.faults.shim import Tree

_HEAD = struct.Struct("<6Q")
Folders = dict[int, dict[bytes, int]]  # the inodes of a folder's names, by the inode of the folder


class Call(NamedTuple):
    """A record of the trace; the shim says which fields a kind has."""

    kind: str
    a: int
    b: int
    name: bytes
    second: bytes


def calls(trace: bytes) -> Iterator[Call]:
    at = 0
    while at < len(trace):
        kind, a, b, _, one, two = _HEAD.unpack_from(trace, at)
        at += _HEAD.size
        yield Call(chr(kind), a, b, trace[at : at + one], trace[at + one : at + one + two])
        at += one + two


class Write(NamedTuple):
    """Bytes for a place in a file; as a truncation ``data`` is None and ``offset`` the new size."""

    offset: int
    data: bytes | None


class Edit(NamedTuple):
    """A name in a folder that comes to lead to ``target``, or to nothing."""

    folder: int
    name: bytes
    target: int | None


class Naming(NamedTuple):
    """Edits that a file system makes together; they last once ``folder`` is synced."""

    folder: int
    edits: tuple[Edit, ...]


class Choice(NamedTuple):
    """Which part of what was not synced survives. ``names``: of the pending namings; ``writes``: how files lose data."""

    name: str
    names: str
    writes: str
    seed: int = 0


CHOICES = [
    Choice("nothing unsynced", "none", "none"),
    Choice("everything", "all", "all"),
    Choice("names without data", "all", "none"),
    Choice("names and sizes without data", "all", "zeros"),
    Choice("data without names", "none", "all"),
    Choice("torn at 512", "all", "torn 512"),
    Choice("torn at 4096", "all", "torn 4096"),
    Choice("torn at 512 in any order", "all", "scattered 512"),
    Choice("later writes without the first", "all", "not first"),
    Choice("later names without the first", "not first", "all"),
    Choice("the last name alone", "last", "all"),
    *(Choice(f"any, {seed}", "some", "some", seed) for seed in range(4)),
]


class Disk:
    """Files and folders by inode, as they last, and what is pending."""

    def __init__(self, root: Path) -> None:
        self.root = os.stat(root).st_ino
        self.files: dict[int, bytes] = {}
        self.writes: dict[int, list[Write]] = {}
        self.folders: Folders = {}
        self.namings: list[Naming] = []
        self._now: Folders = {}
        for path, folders, files in os.walk(root):
            inode = os.stat(path).st_ino
            entries = {os.fsencode(name): os.stat(f"{path}/{name}").st_ino for name in (*folders, *files)}
            self.folders[inode], self._now[inode] = entries, dict(entries)
            for name in files:
                self.files[entries[os.fsencode(name)]] = Path(path, name).read_bytes()

    def apply(self, call: Call) -> None:
        kind, a, b, name, second = call
        if kind == "W":
            self.writes.setdefault(a, []).append(Write(b, name))
        elif kind == "T":
            self.writes.setdefault(a, []).append(Write(b, None))
        elif kind == "S":
            self.files[a] = _written(self.files[a], self.writes.pop(a, []))
        elif kind == "D":
            self._sync_folder(a)
        elif kind in "CM":
            if kind == "C":
                self.files[b] = b""
                self.writes.pop(b, None)
            else:
                self.folders[b], self._now[b] = {}, {}
            self._name(a, Edit(a, name, b))
        elif kind == "L":
            self._name(a, Edit(a, name, b))
        elif kind in "UX":
            self._name(a, Edit(a, name, None))
        elif kind in "RE":
            there = self._now[b].get(second) if kind == "E" else None
            self._name(b, Edit(a, name, there), Edit(b, second, self._now[a][name]))
        elif kind != "A":
            raise ValueError(f"an unknown kind of call: {kind!r}")

    def _name(self, folder: int, *edits: Edit) -> None:
        self.namings.append(Naming(folder, edits))
        _edit(self._now, edits)

    def _sync_folder(self, folder: int) -> None:
        settled: dict[tuple[int, bytes], int] = {}
        for number, naming in enumerate(self.namings):
            if naming.folder == folder:
                settled.update(((edit.folder, edit.name), number) for edit in naming.edits)
                _edit(self.folders, naming.edits)
        # What came before a name that lasts now can't come back after it.
        pending = []
        for number, naming in enumerate(self.namings):
            if naming.folder == folder:
                continue
            edits = tuple(edit for edit in naming.edits if settled.get((edit.folder, edit.name), -1) < number)
            if edits:
                pending.append(Naming(naming.folder, edits))
        self.namings = pending

    def survivor(self, choice: Choice) -> Tree | None:
        """The tree below the root after the power went; None where no file system would leave that."""
        rng = random.Random(f"{choice.seed} {len(self.namings)} {sum(map(len, self.writes.values()))}")
        folders = {inode: dict(entries) for inode, entries in self.folders.items()}
        for number, naming in enumerate(self.namings):
            if not _survives(choice.names, number, len(self.namings), rng):
                continue
            for edit in naming.edits:
                there = folders[edit.folder].get(edit.name)
                if there in folders and folders[there] and edit.target != there and len(naming.edits) == 1:
                    return None  # a folder that is not empty neither goes nor is replaced
            _edit(folders, naming.edits)
        tree: Tree = {}
        self._grow(tree, "", self.root, folders, choice.writes, rng)
        return tree

    def _grow(self, tree: Tree, path: str, inode: int, folders: Folders, how: str, rng: random.Random) -> None:
        for name, target in sorted(folders[inode].items()):
            inner = f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
            if target in folders:
                tree[inner] = None
                self._grow(tree, inner, target, folders, how, rng)
            else:
                tree[inner] = _survived(self.files[target], self.writes.get(target, []), how, rng)


def _survives(how: str, number: int, count: int, rng: random.Random) -> bool:
    return {
        "none": False,
        "all": True,
        "not first": number > 0,
        "last": number == count - 1,
        "some": rng.random() < 0.5,
    }[how]


def _edit(folders: Folders, edits: tuple[Edit, ...]) -> None:
    for folder, name, target in edits:
        if target is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = target


def _written(data: bytes, writes: list[Write]) -> bytes:
    for offset, new in writes:
        if new is None:
            data = data[:offset] + bytes(max(0, offset - len(data)))
        else:
            data = data[:offset] + bytes(max(0, offset - len(data))) + new + data[offset + len(new) :]
    return data


def _survived(data: bytes, writes: list[Write], how: str, rng: random.Random) -> bytes:
    if not writes or how == "all":
        return _written(data, writes)
    kind, _, size = how.partition(" ")
    if kind == "none":
        return data
    if kind == "zeros":
        whole = _written(data, writes)
        return data[: len(whole)] + bytes(max(0, len(whole) - len(data)))
    if how == "not first":
        return _written(data, writes[1:])
    if kind == "some":
        return _written(data, [write for write in writes if rng.random() < 0.5])
    for write in writes:
        data = _torn(data, write, int(size), rng, scattered=kind == "scattered")
    return data


def _torn(data: bytes, write: Write, size: int, rng: random.Random, *, scattered: bool) -> bytes:
    """Some sectors of a write: the first ones, or any. The others keep what was there, zeros where the file was shorter."""
    whole = _written(data, [write])
    if write.data is None:
        return whole if rng.random() < 0.5 else data
    start, stop = write.offset // size, -(-(write.offset + len(write.data)) // size)
    reached = rng.randint(start, stop)
    old = data + bytes(max(0, len(whole) - len(data)))
    for sector in range(start, stop):
        kept = rng.random() < 0.5 if scattered else sector < reached
        if not kept:
            cut = slice(sector * size, (sector + 1) * size)
            whole = whole[: cut.start] + old[cut] + whole[cut.stop :]
    return whole
