"""Documents on their way into a transaction: batch by batch, with their ids and metadata, the schema filled in as they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import door
from metaindex.errors import ShapeError
from metaindex.storage.schema import IdKind, Schema
from metaindex.storage.store import Transaction

_END = object()


def ingest(
    transaction: Transaction, vectors: Any, ids: Any, metadata: Any, check_dim: Callable[[int], None] | None = None
) -> NDArray:
    """Add ``vectors`` with ``ids`` and ``metadata``, see ``MetaIndex.add``, and return the ids. ``check_dim`` is told the d of
    the first ones, where the index had none, and may raise."""
    kind = transaction.schema.id_kind
    given = None if ids is None else door.ids(ids, kind=kind)
    names: set[str] = set()
    texts = None if metadata is None else door.metadata(metadata, names)
    added: list[NDArray] = []
    count = 0
    for batch in door.documents(vectors, lambda: _expected(transaction.schema)):
        size = len(batch.lengths)
        if not size:
            continue
        chosen = _next_ids(transaction, size) if given is None else given[count : count + size]
        described = None if texts is None else list(islice(texts, size))
        count += size
        if len(chosen) < size:
            raise ShapeError(f"ids: expected one for each document, got {count - size + len(chosen)} for {count} or more")
        if described is not None and len(described) < size:
            raise ShapeError(
                f"metadata: expected one for each document, got {count - size + len(described)} for {count} or more"
            )
        if transaction.schema.dim is None and check_dim is not None:
            check_dim(batch.values.shape[2])
        transaction.set_schema(_grown(transaction.schema, batch, chosen))
        transaction.add(batch.values, batch.lengths, chosen, described, names)
        added.append(chosen)
        del batch  # before the next one is made
    if given is not None and len(given) > count:
        raise ShapeError(f"ids: expected {count}, one for each document, got {len(given)}")
    if texts is not None and next(texts, _END) is not _END:
        raise ShapeError(f"metadata: expected {count}, one for each document, got more")
    return np.concatenate(added) if added else np.empty(0, object if kind == "text" else np.int64)


def _expected(schema: Schema) -> door.Expected:
    """What the index takes as documents."""
    return door.Expected("doc_vectors", ("N", "T", "d"), schema.doc_tokens, schema.dim, schema.strictest, schema.normalize)


def _grown(schema: Schema, batch: door.Tokens, ids: NDArray) -> Schema:
    """``schema`` with what was open filled in from the batch, and as many levels as its documents need."""
    kind: IdKind = "text" if ids.dtype == object else "int"
    return replace(schema, dim=batch.values.shape[2], levels=schema.levels.extended_to(int(batch.lengths.max())), id_kind=kind)


def _next_ids(transaction: Transaction, count: int) -> NDArray[np.int64]:
    if transaction.schema.id_kind == "text":
        raise TypeError("ids: this index has text ids, so every document needs one; give ids=[...]")
    if transaction.next_id + count > 2**63 - 1:
        raise ValueError(f"ids: no default ids are left above {transaction.next_id - 1}; give ids=[...]")
    return np.arange(transaction.next_id, transaction.next_id + count, dtype=np.int64)
