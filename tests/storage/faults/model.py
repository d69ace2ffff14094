"""What an index should hold, as a plain dict, and changes as plain data that run on both an index and that dict."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from metaindex import MetaIndex
from metaindex.codecs import codec as find_codec

DIM = 4
TOKENS = 4  # edges 1, 2, 4: three levels
JOURNAL = "catalog.sqlite-journal"
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
PLAIN = ("catalog.sqlite", "lock", "readers", "segments", "tmp")


class Entry(NamedTuple):
    """A document: its vectors come from ``seed``, it has ``length`` tokens."""

    id: int
    seed: int
    length: int
    metadata: dict[str, Any] | None = None


class Change(NamedTuple):
    """``kind`` is the name of the call; ``entries`` its documents, for ``remove`` and ``update_metadata`` by id alone."""

    kind: str
    entries: tuple[Entry, ...] = ()
    purge: bool = False


Model = dict[int, Entry]  # in the order of addition
View = list[tuple[int, int, bytes, Any]]


def applied(model: Model, change: Change) -> Model:
    """The model after the change; ``model`` itself stays."""
    after = dict(model)
    for entry in change.entries:
        if change.kind == "update_metadata":
            after[entry.id] = after[entry.id]._replace(metadata=entry.metadata)
            continue
        after.pop(entry.id, None)
        if change.kind != "remove":
            after[entry.id] = entry
    return after


def perform(index: MetaIndex, change: Change) -> None:
    """The same change on an index."""
    entries = change.entries
    ids = [entry.id for entry in entries]
    metadata = [entry.metadata for entry in entries]
    if change.kind in ("add", "upsert"):
        documents = [vectors(entry.seed, entry.length) for entry in entries]
        getattr(index, change.kind)(documents, ids, metadata if any(metadata) else None)
    elif change.kind == "update_metadata":
        index.update_metadata(ids, metadata)
    elif change.kind == "remove":
        index.remove(ids)
    else:
        index.compact(purge=change.purge)


def vectors(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((length, DIM)).astype(np.float32)


@lru_cache(maxsize=4096)
def _kept(seed: int, length: int, codec: str) -> bytes:
    kind = find_codec(codec)
    return kind.decode(kind.encode(vectors(seed, length))).tobytes()


def expected(model: Model, codec: str) -> View:
    """What ``view`` shows of an index that holds ``model``."""
    return [(entry.id, entry.length, _kept(entry.seed, entry.length, codec), entry.metadata) for entry in model.values()]


def view(index: MetaIndex) -> View:
    """All that an index holds, in the order of addition."""
    documents = index.get(list(index))
    return [(document.id, len(document.tokens), document.tokens.tobytes(), document.metadata) for document in documents]


def new_index(path: str | os.PathLike[str], codec: str) -> MetaIndex:
    return MetaIndex(DIM, TOKENS, codec=codec, path=path, num_threads=1)


def opened(path: str | os.PathLike[str], mode: str = "r") -> MetaIndex:
    return MetaIndex.open(path, mode, verify=True, num_threads=1)


def leftovers(path: str | os.PathLike[str]) -> list[str]:
    """Names in a closed index folder that no part of the index has."""
    root = os.fspath(path)
    with closing(sqlite3.connect(os.path.join(root, "catalog.sqlite"))) as connection:
        named = {f"{number:08d}" for (number,) in connection.execute("SELECT number FROM segments")}
    found = sorted(set(os.listdir(root)).difference(PLAIN))
    if JOURNAL in found and not _is_hot(os.path.join(root, JOURNAL)):
        found.remove(JOURNAL)  # killed before it counted: SQLite passes over it, and the next commit writes over it
    found += [f"tmp/{name}" for name in os.listdir(os.path.join(root, "tmp"))]
    return found + [f"segments/{name}" for name in sorted(set(os.listdir(os.path.join(root, "segments"))) ^ named)]


def _is_hot(journal: str) -> bool:
    with open(journal, "rb") as file:
        return file.read(8) == _JOURNAL_MAGIC


def summary(shown: View) -> Sequence[Any]:
    """Few words for a message: ids, lengths and metadata."""
    return [(id_, length, metadata) for id_, length, _, metadata in shown]
