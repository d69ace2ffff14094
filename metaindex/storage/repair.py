"""Repairing an index: what is damaged is dropped, in one transaction, and all that is sound stays as it is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metaindex.errors import IndexLockedError, MetaIndexError
from metaindex.storage import folder
from metaindex.storage.catalog import Catalog, State
from metaindex.storage.database import NAME, checksum
from metaindex.storage.files import Files
from metaindex.storage.place import FolderPlace
from metaindex.storage.verify import Damage, Inspection, wrong_id

_BATCH = 20_000
_COPY = "restore the index from a copy"
_INDEXES = ("index documents_removed", "index metadata_field_", "non-unique entry in index", "malformed JSON")


@dataclass(frozen=True)
class Repair:
    """What a repair would drop or, where it was ``applied``, has dropped.

    ``lost``: ids of the documents that are gone with it. ``kept``: how many stand. ``possible``: whether a repair can make the
    index sound; ``advice`` says what to do where it can't.
    """

    damage: tuple[Damage, ...]
    lost: list[int | str]
    kept: int
    possible: bool
    applied: bool
    advice: str = ""

    def __str__(self) -> str:
        if not self.damage:
            return f"ok: nothing to repair, {self.kept:,} documents"
        listed = [f"  {one}" for one in self.damage]
        if not self.possible:
            return "\n".join(["DAMAGED: this can't be repaired", *listed, f"  {self.advice}"])
        some = ", ".join(map(repr, self.lost[:10])) + (" ..." if len(self.lost) > 10 else "")
        done = "repaired: dropped" if self.applied else "a repair would drop"
        return "\n".join([f"{done} {len(self.lost):,} documents{f' ({some})' if some else ''}, kept {self.kept:,}", *listed])


@dataclass
class _Changes:
    """What the transaction has to do. ``put``: rows of documents (sequence, id, created, removed)."""

    segments: set[int] = field(default_factory=set)
    put: list[tuple[int, Any, int, int | None]] = field(default_factory=list)
    delete: list[int] = field(default_factory=list)
    lost: list[int | str] = field(default_factory=list)
    kept: int = 0


def repair(path: str | os.PathLike[str], *, apply: bool = False, files: type[Files] = Files) -> Repair:
    """See ``MetaIndex.repair``."""
    opened, lock = folder.locked(path, files, writable=True)
    try:
        try:
            catalog = Catalog.open(opened, writable=True)
        except IndexLockedError:
            raise
        except MetaIndexError as error:
            return _impossible([Damage(NAME, str(error), 0)])
        try:
            catalog.tolerate_any_text()
            return _repair(opened, catalog, FolderPlace(opened), apply)
        finally:
            catalog.close()
    finally:
        lock.release()


def _repair(files: Files, catalog: Catalog, place: FolderPlace, apply: bool) -> Repair:
    broken = catalog.damage()
    damage = [Damage(NAME, f"SQLite finds: {line}", 0) for line in broken]
    if not all(any(part in line for part in _INDEXES) for line in broken):
        return _impossible(damage)
    try:
        with catalog.transaction():
            if broken:
                catalog.drop_field_indexes()  # made again at the end: they can't read metadata that is no JSON
                catalog.change("REINDEX")
            return _in_transaction(files, catalog, place, damage, apply)
    except _Unapplied as unapplied:
        return unapplied.repair
    except MetaIndexError as error:
        return _impossible([*damage, Damage(NAME, str(error), 0)])


class _Unapplied(Exception):  # noqa: N818  not an error: it undoes the transaction
    def __init__(self, repair: Repair) -> None:
        self.repair = repair


def _in_transaction(files: Files, catalog: Catalog, place: FolderPlace, damage: list[Damage], apply: bool) -> Repair:
    state = catalog.state()
    found = Inspection(files, catalog, state.schema, state.counters)
    found.look(state.segments, place)
    damage = [*damage, *found.damage]
    changes = _changes(catalog, state, found)
    done = Repair(tuple(damage), changes.lost, changes.kept, True, bool(apply and damage))
    if not apply or not damage:
        raise _Unapplied(done)
    _change(catalog, state, found, changes)
    after = catalog.state()
    left = Inspection(files, catalog, after.schema, after.counters)
    left.look(after.segments, place)
    if left.damage:
        raise _Unapplied(_impossible(damage))
    return done


def _changes(catalog: Catalog, state: State, found: Inspection) -> _Changes:
    changes = _Changes(segments=set(found.segments))
    seen = np.empty(0, np.int64)
    for record in state.segments:
        if record.number in changes.segments:
            continue
        here = found.rows({one.number for one in state.segments if one.number != record.number}).sequence
        if len(np.intersect1d(seen, here)):
            changes.segments.add(record.number)
        else:
            seen = np.union1d(seen, here)
    rows = found.rows(changes.segments)
    sound = dict(zip(rows.sequence.tolist(), rows.ids.tolist()))
    commit, standing, restored = state.counters.commit, dict[Any, int](), dict[int, int | None]()
    called: dict[int, Any] = {}  # what the catalog calls a document that its segment calls otherwise
    for batch, _ in catalog.document_rows(_BATCH):
        for sequence, id_, created, removed, _ in batch:
            gone = type(removed) is int and 0 <= removed <= commit
            if sequence in sound:
                if sequence in found.documents or sequence in found.unknown:
                    restored[sequence] = removed if gone else None
                    if sequence not in found.documents:
                        called[sequence] = id_
                elif not gone:
                    if sound[sequence] in standing:
                        restored[sequence] = commit
                    standing.setdefault(sound[sequence], sequence)
                sound_id = sound.pop(sequence)
                if sequence in restored:
                    changes.put.append((sequence, sound_id, _commit_of(created, commit), restored[sequence]))
            elif sequence in found.documents or sequence in found.lost or not gone:
                changes.delete.append(sequence)
                if not gone:
                    changes.lost.append(str(id_) if wrong_id(id_, state.schema) else id_)
    changes.put += [(sequence, id_, commit, None) for sequence, id_ in sound.items()]
    for at, (sequence, id_, created, removed) in enumerate(changes.put):
        if removed is None and standing.setdefault(id_, sequence) != sequence:
            changes.put[at] = (sequence, id_, created, commit)
            changes.lost.append(called.get(sequence, id_))
    changes.kept = len(standing)
    return changes


def _change(catalog: Catalog, state: State, found: Inspection, changes: _Changes) -> None:
    catalog.drop_segments(sorted(changes.segments))
    catalog.change("DELETE FROM levels WHERE segment NOT IN (SELECT number FROM segments)")
    catalog.change("DELETE FROM documents WHERE sequence = ?", ((number,) for number in changes.delete))
    rows = ((*row, checksum(row)) for row in changes.put)
    catalog.change("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", rows)
    catalog.change("DELETE FROM metadata WHERE sequence IS ? AND created IS ?", found.metadata)
    catalog.change("DELETE FROM metadata WHERE sequence NOT IN (SELECT sequence FROM documents)")
    catalog.change("INSERT OR IGNORE INTO fields VALUES (?)", ((name,) for name in sorted(found.unlisted)))
    catalog.put_coarse(None)  # its file was made of what stood before
    catalog.make_field_indexes(state.schema)
    catalog.change("REINDEX")
    catalog.put(state.schema, state.counters._replace(commit=state.counters.commit + 1))


def _commit_of(created: Any, commit: int) -> int:
    return created if type(created) is int and 0 <= created <= commit else commit


def _impossible(damage: list[Damage]) -> Repair:
    return Repair(tuple(damage), [], 0, False, False, f"{_COPY}; {NAME} says what the index holds, and can't be made anew")
