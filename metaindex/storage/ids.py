"""Finding ids: where in a segment or a snapshot the document of an id stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray | Sequence[int] | Sequence[str]
"""int64 [n], or ``str`` in an object array; lists are taken too."""


class IdLookup(Protocol):
    """Distinct ids and their places."""

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        """The place of each id, -1 where it is unknown."""

    def overlaps(self, low: int, high: int) -> bool:
        """Whether an integer id in ``[low, high]`` may be among them: cheap enough to ask many segments for each small add."""

    @property
    def nbytes(self) -> int: ...


def lookup(ids: NDArray, places: NDArray[np.int64] | None = None) -> IdLookup:
    """A lookup for distinct ids, int64 [n] or ``str`` in an object array; ``places`` [n] are 0..n-1 by default."""
    if ids.dtype == object:
        return _TextLookup(ids, places)
    return _IntLookup(ids, places)


def as_array(ids: Ids) -> NDArray:
    """int64 or, for text, an object array."""
    if isinstance(ids, np.ndarray):
        return ids
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array if len(ids) and isinstance(ids[0], str) else array.astype(np.int64)


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
    """Binary search. Ids without gaps, as default ones are, need no memory."""

    def __init__(self, ids: NDArray[np.int64], places: NDArray[np.int64] | None) -> None:
        self._ids: NDArray[np.int64] | None = ids
        self._places: NDArray | None = places
        if not np.all(ids[1:] > ids[:-1]):
            order = np.argsort(ids)
            self._ids = ids = ids[order]
            places = order if places is None else places[order]
            small = places.max() < 1 << 31  # half the memory
            self._places = places.astype(np.int32) if small else places
        self._low, self._high = (int(ids[0]), int(ids[-1])) if len(ids) else (0, -1)
        if self._high - self._low == len(ids) - 1:
            self._ids = None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self._ids, self._places) if array is not None)

    def overlaps(self, low: int, high: int) -> bool:
        return low <= self._high and high >= self._low

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        found = np.full(len(ids), -1, np.int64)
        if ids.dtype == object:
            return found
        inside = np.flatnonzero((ids >= self._low) & (ids <= self._high))
        asked = ids[inside]
        if self._ids is None:
            at = asked - self._low
        else:
            # Rising needles walk through memory in one direction: a third of the time of scattered ones.
            order = np.argsort(asked)
            inside, asked = inside[order], asked[order]
            at = np.searchsorted(self._ids, asked)
            same = self._ids[at] == asked
            inside, at = inside[same], at[same]
        found[inside] = at if self._places is None else self._places[at]
        return found


class _TextLookup:
    def __init__(self, ids: NDArray, places: NDArray[np.int64] | None) -> None:
        self._places = dict(zip(ids.tolist(), range(len(ids)) if places is None else places.tolist()))
        self.nbytes = 100 * len(ids)  # what an entry of a dict with an int takes, roughly; the texts are the snapshot's

    def overlaps(self, low: int, high: int) -> bool:
        return False

    def find(self, ids: NDArray) -> NDArray[np.int64]:
        places = self._places
        return np.fromiter((places.get(id_, -1) for id_ in ids.tolist()), np.int64, len(ids))
