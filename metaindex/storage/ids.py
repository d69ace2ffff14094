"""Finding ids: where in a segment or a snapshot the document of an id stands."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class IdLookup(Protocol):
    """Distinct ids and their places."""

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        """The place of each id, -1 where it is unknown."""

    @property
    def nbytes(self) -> int: ...


def lookup(ids: NDArray, places: NDArray[np.int64] | None = None) -> IdLookup:
    """A lookup for distinct ids, int64 [n] or ``str`` in an object array; ``places`` [n] are 0..n-1 by default."""
    if ids.dtype == object:
        return _TextLookup(ids, places)
    return _IntLookup(ids, places)


def as_array(ids: NDArray[np.int64] | list[str]) -> NDArray:
    """int64 as it is, text as an object array."""
    if isinstance(ids, np.ndarray):
        return ids
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


def repeated(ids: NDArray) -> list[int | str]:
    """Ids that stand more than once in an array."""
    if ids.dtype != object and bool(np.all(ids[1:] > ids[:-1])):
        return []
    seen: set[int | str] = set()
    twice: dict[int | str, None] = {}
    for id_ in ids.tolist():
        if id_ in seen:
            twice[id_] = None
        seen.add(id_)
    return list(twice)


class _IntLookup:
    """Binary search. Ids that rise, as default ones do, need no memory of their own."""

    def __init__(self, ids: NDArray[np.int64], places: NDArray[np.int64] | None) -> None:
        self._sorted, self._places = ids, places
        if not np.all(ids[1:] > ids[:-1]):
            order = np.argsort(ids)
            self._sorted = ids[order]
            self._places = order if places is None else places[order]
        self._low, self._high = (int(self._sorted[0]), int(self._sorted[-1])) if len(ids) else (0, -1)
        self._dense = len(ids) > 0 and self._high - self._low == len(ids) - 1
        self.nbytes = (0 if self._sorted is ids else self._sorted.nbytes) + (0 if self._places is None else self._places.nbytes)

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        if ids.dtype == object or not len(ids):
            return np.full(len(ids), -1, np.int64)
        inside = (ids >= self._low) & (ids <= self._high)
        if not inside.any():
            return np.full(len(ids), -1, np.int64)
        if self._dense:
            at = np.where(inside, ids - self._low, 0)
        else:
            at = np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
            inside &= self._sorted[at] == ids
        return np.where(inside, at if self._places is None else self._places[at], -1)


class _TextLookup:
    def __init__(self, ids: NDArray, places: NDArray[np.int64] | None) -> None:
        self._places = dict(zip(ids.tolist(), range(len(ids)) if places is None else places.tolist()))
        self.nbytes = 100 * len(ids)  # what an entry of a dict with an int takes, roughly; the texts are the snapshot's

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        places = self._places
        return np.fromiter((places.get(id_, -1) for id_ in ids.tolist()), np.int64, len(ids))
