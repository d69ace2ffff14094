"""Where the vectors of a snapshot lie: one table of addresses for all segments and the levels that a budget needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from metaindex.storage.snapshot import Snapshot

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Placed:
    """A level's codes [rows, width, d] and scales [rows, width]; ``resident``: on the device itself."""

    start: int
    codes: Tensor
    scales: Tensor | None
    resident: bool

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield self.codes
        if self.scales is not None:
            yield self.scales


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """What kernels know of a snapshot: S segments, L levels.

    Token j of a document lies in level ``l = token_levels[j]``, at ``codes[segment, l] + at * d * itemsize``, its scale at
    ``scales[segment, l] + at * 4``, with ``at = row * widths[l] + j - starts[l]`` and ``row`` counted within the segment.
    A document of length t has no token j >= t: what lies there is padding, and where it reaches no token of a level, nothing.

    Attributes:
        codes: int64 [S, L], addresses, multiples of 16; 0 where no document of the segment reaches the level. On the device or
            in pinned memory.
        scales: int64 [S, L] likewise, for scaled codecs.
        first_rows: int64 [S + 1], the row at which each segment starts, and the total.
        lengths: int32 [rows], of all documents; within a segment they fall.
        starts, widths: int32 [L], the first token and the number of tokens of each level.
        token_levels: int32 [tokens], tokens = starts[-1] + widths[-1].
        token_codes, token_scales: int64 [S, tokens], the same table token by token: the addresses of token j of a segment's
            row 0. Of row r it lies ``r * token_widths[j]`` tokens further on.
        token_widths: int32 [tokens], ``widths[token_levels]``.
        places: int32 [rows], each row's place in the order of addition; ``None`` where that is the row itself.
        rows_at: int64 [rows], the row at each place; ``None`` likewise.
        alive: bool [rows], which documents still stand; ``None`` where all do. Kernels know nothing of it: it is an ``allow``.
        shape: (starts, widths) once more, on the host.
        level_rows: [S][L], on the host: how many documents of each segment reach each level.
        full: whether every document has as many tokens as the levels hold, so that no length need be looked at.
    """

    codec: str
    dim: int
    rows: int
    codes: Tensor
    scales: Tensor | None
    first_rows: Tensor
    lengths: Tensor
    starts: Tensor
    widths: Tensor
    token_levels: Tensor
    token_codes: Tensor
    token_scales: Tensor | None
    token_widths: Tensor
    places: Tensor | None
    rows_at: Tensor | None
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    level_rows: tuple[tuple[int, ...], ...]
    full: bool
    segment_rows: tuple[int, ...]
    held: tuple[Placed, ...] = field(repr=False)  # what the addresses point to
    alive: Tensor | None = None
    resident: bool = True  # whether all of it lies on the device itself
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def tokens(self) -> int:
        """How many tokens the levels hold."""
        starts, widths = self.shape
        return starts[-1] + widths[-1] if starts else 0

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made by the first call with ``key`` and kept as long as the table: work that was queued, or
        captured in a graph, may read it as it reads the table."""
        with self._lock:
            if key not in self._derived:
                self._derived[key] = make()
            return cast(T, self._derived[key])

    def tiles(self, size: int, span: tuple[int, int]) -> Tensor:
        """The rows of ``span`` cut into runs of at most ``size`` rows of one segment: int32 [n, 3], a run's segment, its first
        row within that and how many rows it has. Made once and kept."""
        import torch

        def made() -> Tensor:
            return torch.from_numpy(tile_runs(self.segment_rows, size, span)).to(self.device)

        return self.derived((size, *span), made)


def tile_runs(segment_rows: Sequence[int], size: int, span: tuple[int, int]) -> NDArray[np.int32]:
    """See ``DeviceTable.tiles``."""
    runs, first = [], 0
    for segment, rows in enumerate(segment_rows):
        begin, end = max(span[0] - first, 0), min(span[1] - first, rows)
        if begin < end:
            starts = np.arange(begin, end, size)
            runs.append(np.stack([np.full(len(starts), segment), starts, np.minimum(size, end - starts)], axis=1))
        first += rows
    return np.concatenate(runs).astype(np.int32) if runs else np.empty((0, 3), np.int32)


def order_of_addition(snapshot: Snapshot) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Each row's place among all rows in the order of addition, int32 [rows], and the row at each place, int64 [rows];
    ``None`` where rows stand in that order."""
    sequence = np.concatenate([segment.sequence for segment in snapshot.segments] or [np.empty(0, np.int64)])
    rows_at = np.argsort(sequence, kind="stable")
    if np.array_equal(rows_at, np.arange(len(rows_at))):
        return None
    places = np.empty(len(rows_at), np.int32)
    places[rows_at] = np.arange(len(rows_at), dtype=np.int32)
    return places, rows_at
