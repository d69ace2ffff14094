"""What filters let through in one snapshot, kept for searches that come again."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from metaindex.storage.where import Query

_MOST_ENTRIES = 64
_MOST_BYTES = 64 << 20


class Matches:
    """The rows that queries found; the ones asked for longest ago make room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[Query, NDArray[np.int64]] = OrderedDict()
        self.nbytes = 0

    def get(self, query: Query) -> NDArray[np.int64] | None:
        if not self._lock.acquire(blocking=False):  # in a forked child it may stay locked for ever
            return None
        try:
            if query in self._found:
                self._found.move_to_end(query)
            return self._found.get(query)
        finally:
            self._lock.release()

    def put(self, query: Query, rows: NDArray[np.int64]) -> None:
        if rows.nbytes > _MOST_BYTES or not self._lock.acquire(blocking=False):
            return
        try:
            if query not in self._found:
                self._found[query] = rows
                self.nbytes += rows.nbytes
            while len(self._found) > _MOST_ENTRIES or self.nbytes > _MOST_BYTES:
                self.nbytes -= self._found.popitem(last=False)[1].nbytes
        finally:
            self._lock.release()
