"""Small stores with known content, and a plain model to compare them with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts, bands
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.store import Store
from metaindex.types import Levels

CODECS = ("float32", "float16", "bfloat16", "int8", "2:int8,float16")


def schema(dim: int = 5, tokens: int = 8, codec: str = "float16", **more: Any) -> Schema:
    return Schema(dim=dim, levels=Levels.doubling(tokens), codec=codec, **more)


def vectors(count: int, tokens: int = 8, dim: int = 5, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, tokens, dim)).astype(np.float32)


def full(count: int, tokens: int = 8) -> NDArray[np.int32]:
    return np.full(count, tokens, np.int32)


def ragged(count: int, tokens: int = 8, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(1, tokens + 1, count).astype(np.int32)


def add(
    store: Store, tokens: NDArray, lengths: NDArray | None = None, ids: Any = None, metadata: Sequence[Any] | None = None
) -> None:
    """One transaction that adds documents; default ids go on from the last."""
    texts = None if metadata is None else [None if one is None else json.dumps(one) for one in metadata]
    with store.transaction() as transaction:
        if ids is None:
            ids = np.arange(transaction.next_id, transaction.next_id + len(tokens))
        names = {name for one in metadata or () for name in one or ()}
        transaction.add(tokens, full(len(tokens), tokens.shape[1]) if lengths is None else lengths, ids, texts, names)


def content(store: Store, snapshot: Snapshot | None = None) -> list[tuple[Any, NDArray[np.float32]]]:
    """Ids and decoded tokens [t, d] of the documents that stand, in the order of addition."""
    snapshot = snapshot or store.snapshot
    found = []
    for row in snapshot.order.tolist():
        segment, at = snapshot.place(row)
        cut = []
        for level in segment.levels:
            if at < level.rows:
                codes, scales = level.parts
                tokens = level.codec.decode(Parts(codes[at], None if scales is None else scales[at]))
                assert not tokens[max(0, int(segment.lengths[at]) - level.start) :].any()
                cut.append(tokens)
        found.append((segment.ids[at], np.concatenate(cut)[: segment.lengths[at]]))
    return found


def assert_holds(
    store: Store, ids: Sequence[Any], documents: Sequence[NDArray[np.float32]], snapshot: Snapshot | None = None
) -> None:
    """The store holds just these documents, in this order, as its codecs keep them; so does its early copy."""
    snapshot = snapshot or store.snapshot
    held = [(snapshot, store.schema.codec)]
    if store.schema.early is not None:
        held.append((snapshot.early_view, store.schema.early))
    for one, kept in held:
        found = content(store, one)
        assert [id_ for id_, _ in found] == list(ids)
        for (_, tokens), document in zip(found, documents):
            kinds = [bands(kept).at(place) for place in range(len(document))]
            expected = [kind.decode(kind.encode(token)) for kind, token in zip(kinds, document)]
            np.testing.assert_array_equal(tokens, expected)
