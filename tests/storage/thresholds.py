"""Small thresholds, so that few and tiny documents take every path of the store; and counts of the paths that were taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

from metaindex import door
from metaindex.execution import executor, windows
from metaindex.storage import catalog, folder, merge, pack, place, store, transaction

_LOWERED = [
    (merge, "MERGE_BYTES", 3000),
    (merge, "CHUNK_BYTES", 64),
    (folder, "SAVED_SEGMENT_BYTES", 512),
    (folder, "_BATCH", 5),
    (pack, "_BLOCK_BYTES", 64),
    (catalog, "_IN_ONE_QUERY", 3),
    (store, "_FEW_LOOKUPS", 8),
    (door, "_RUN_NUMBERS", 40),
    (executor, "_KEPT_BYTES", 400),
    (place, "_SHORT_SECONDS", 0.001),
]


@contextmanager
def lowered() -> Iterator[Counter[str]]:
    """Lower every threshold; counts, by name, how often a path was taken meanwhile."""
    paths: Counter[str] = Counter()

    def counted(owner: Any, name: str, what: Callable[..., str | None]) -> Any:
        original = getattr(owner, name)

        @wraps(original)
        def called(*args: Any, **named: Any) -> Any:
            result = original(*args, **named)
            if path := what(result, *args, **named):
                paths[path] += 1
            return result

        return mock.patch.object(owner, name, called)

    watched = [
        counted(transaction, "due", lambda window, segments: "merge" if window else None),
        counted(folder, "_groups", lambda *_: "save"),
        counted(
            merge.Merge,
            "__init__",
            lambda _, self, held, schema: "merge of removed" if any(len(h.removed) for h in held) else None,
        ),
        counted(pack, "_level_of", lambda *_: "packed by blocks"),
        counted(place.FolderPlace, "clean", lambda *_: "cleaned at open"),
        counted(place.FolderPlace, "purge", lambda *_: "purge"),
        counted(place.FolderPlace, "_load", lambda *_: "mapped late"),
        counted(store.Store, "_settle", lambda *_: "undone"),
        counted(executor, "_part", lambda part, search, batch: "search in batches" if part is not search else None),
        counted(executor.Search, "request", _request),
        counted(windows._Needed, "_window", lambda _, self, pieces, first, buffer: "window after the first" if first else None),
        counted(catalog.Catalog, "drop_history", lambda dropped, *_: "history dropped" if dropped else None),
    ]
    with ExitStack() as stack:
        for owner, name, value in _LOWERED:
            stack.enter_context(mock.patch.object(owner, name, value))
        for patch in watched:
            stack.enter_context(patch)
        yield paths


def _request(request: Any, search: Any, budget: Any, candidates: Any, k: Any) -> str:
    if candidates is not None:
        return "gather"
    return "scan of several segments" if len(search.snapshot.segments) > 1 else "scan of one segment"


PATHS = frozenset(
    {
        "merge",
        "save",
        "merge of removed",
        "packed by blocks",
        "cleaned at open",
        "purge",
        "mapped late",
        "undone",
        "search in batches",
        "gather",
        "scan of one segment",
        "scan of several segments",
        "window after the first",
        "history dropped",
    }
)
