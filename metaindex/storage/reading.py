"""Reading the rows of a level by position, for indexes that are larger than memory: nothing is mapped, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec, Parts
from metaindex.storage.files import Files
from metaindex.storage.tensors import ALIGNMENT, Extent, damaged

if TYPE_CHECKING:
    from metaindex.storage.cache import VectorMemory


def room(nbytes: int) -> int:
    """What an array of ``nbytes`` takes in a buffer whose arrays start at multiples of 64 bytes."""
    return nbytes + -nbytes % ALIGNMENT


class LevelReader:
    """Reads rows of one level, whose tensors lie at ``extents``, under the limit of ``memory``.

    ``name`` is asked anew before each read, because a segment that is being written moves; so is ``guard``, which tells what
    it means when the file is gone.
    """

    def __init__(
        self,
        files: Files,
        name: Callable[[], str],
        guard: Callable[[], AbstractContextManager[None]],
        extents: Mapping[str, Extent],
        codec: Codec,
        memory: VectorMemory,
    ) -> None:
        self._files, self._name, self._guard, self._extents = files, name, guard, dict(extents)
        self.memory = memory
        (_, self.width, self.dim) = extents["codes"].shape
        self.dtypes = {"codes": codec.dtype} | ({"scales": np.dtype("<f4")} if codec.scaled else {})
        self.row_shapes: dict[str, tuple[int, ...]] = {"codes": (self.width, self.dim), "scales": (self.width,)}
        self.row_bytes = {
            kind: int(np.prod(self.row_shapes[kind], dtype=np.int64)) * dtype.itemsize for kind, dtype in self.dtypes.items()
        }

    def room(self, rows: int) -> int:
        """What ``rows`` rows take in a buffer."""
        return sum(room(rows * nbytes) for nbytes in self.row_bytes.values())

    def whole(self, rows: int) -> Parts:
        """The first ``rows`` rows, in arrays of their own."""
        arrays = {kind: np.empty((rows, *self.row_shapes[kind]), dtype) for kind, dtype in self.dtypes.items()}
        for kind, array in arrays.items():
            self.fill(kind, np.array([[0, rows]]), array)
        return Parts(arrays["codes"], arrays.get("scales"))

    def carve(self, rows: int, runs: NDArray[np.int64], buffer: NDArray[np.uint8]) -> tuple[Parts, NDArray[np.uint8]]:
        """Room for ``rows`` rows at the front of ``buffer``, filled with those of ``runs``, and what is left of it."""
        arrays = {}
        for kind, dtype in self.dtypes.items():
            nbytes = rows * self.row_bytes[kind]
            arrays[kind] = buffer[:nbytes].view(dtype).reshape(rows, *self.row_shapes[kind])
            buffer = buffer[room(nbytes) :]
            self.fill(kind, runs, arrays[kind])
        return Parts(arrays["codes"], arrays.get("scales")), buffer

    def fill(self, kind: str, runs: NDArray[np.int64], out: NDArray) -> None:
        """Read the rows ``[start, stop)`` of each of ``runs`` int64 [n, 2] into ``out``, one after another, one read a run.

        Raises:
            CorruptIndexError: the file is missing, or ends before the rows do.
        """
        if not len(runs):
            return
        size, begin = self.row_bytes[kind], self._extents[kind].begin
        data = out.reshape(-1).view(np.uint8).data
        ends = np.cumsum((runs[:, 1] - runs[:, 0]) * size)
        froms = np.concatenate([[0], ends[:-1]])
        pieces = (
            (offset, data[start:stop])
            for offset, start, stop in zip((begin + runs[:, 0] * size).tolist(), froms.tolist(), ends.tolist())
        )
        name = self._name()
        with self._guard():
            if not self._files.read_at(name, pieces):
                raise damaged(name, "it was cut short while it was open")


def runs_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising ``rows`` [n] as runs ``[start, stop)`` of neighbours, int64 [runs, 2]."""
    if not len(rows):
        return np.empty((0, 2), np.int64)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = rows[np.concatenate([[0], breaks])]
    stops = rows[np.concatenate([breaks, [len(rows)]]) - 1] + 1
    return np.stack([starts, stops], axis=1)


def runs_of_equal(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The places ``[start, stop)`` of runs of equal values."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]]).tolist()
    return list(pairwise(edges)) if len(values) else []
