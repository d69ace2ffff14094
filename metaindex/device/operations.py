"""The operations that every GPU scorer is made of, and what they are given. Triton and CUDA have the same ones.

All arrays are torch tensors on one device; nothing here waits for the device, reads from it, or allocates what grows with N.
Work runs on torch's current stream of that device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from metaindex.device.keys import MISSING

if TYPE_CHECKING:
    from torch import Tensor

    from metaindex.device.table import DeviceTable


@dataclass(frozen=True, eq=False)
class DeviceQueries:
    """Encoded queries: ``codes`` [B, R, d] contiguous, in the codec's dtype (torch.bfloat16 for bfloat16), ``scales`` float32
    [B, R] for scaled codecs, and ``lengths`` int32 [B], 0..R: how many tokens of each query count, cut to r_q already."""

    codes: Tensor
    scales: Tensor | None
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, eq=False)
class Hits:
    """Room for the best documents of each query, as keys (see ``metaindex.device.keys``) in no order.

    ``keys`` int64 [B, capacity], of which the first ``counts`` int32 [B] are written; ``thresholds`` int64 [B]: keys below are
    not wanted. An operation appends the keys above the threshold; its caller sees to it that they fit. What it appends, it
    appends in any order.
    """

    keys: Tensor
    counts: Tensor
    thresholds: Tensor

    @classmethod
    def empty(cls, batch: int, capacity: int, device: object) -> Hits:
        import torch

        keys = torch.empty((batch, capacity), dtype=torch.int64, device=device)  # type: ignore[call-overload]
        counts = torch.zeros(batch, dtype=torch.int32, device=device)  # type: ignore[call-overload]
        thresholds = torch.full((batch,), MISSING, dtype=torch.int64, device=device)  # type: ignore[call-overload]
        return cls(keys, counts, thresholds)


Output: TypeAlias = "Tensor | Hits"


class Operations(Protocol):
    """The kernels of one scorer.

    ``allow``: bool [rows] of the snapshot, or ``None`` for all; a row where it is False is left out.
    ``out`` is a float32 tensor to fill with scores, -inf for what is left out, or ``Hits`` to append to.
    NaN scores count as -inf.
    """

    @property
    def name(self) -> str: ...

    def maxsim_scan(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, span: tuple[int, int], allow: Tensor | None, out: Output
    ) -> None:
        """Score the rows ``span[0] <= row < span[1]`` of the snapshot at (lengths, r_c). Of scores [B, rows] the columns of the
        span are filled."""

    def maxsim_gather(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, candidates: Tensor, allow: Tensor | None, out: Output
    ) -> None:
        """Score the rows ``candidates`` int64 [B, C], or [1, C] for all queries alike, each read where it lies. -1 is left out.
        Scores are [B, C]. With ``Hits`` no row stands twice in a query's list."""

    def topk(self, keys: Tensor, counts: Tensor, k: int) -> Tensor:
        """The k largest of the first ``counts`` int32 [B] of keys int64 [B, n], falling: int64 [B, k], ``MISSING`` where there
        are fewer."""
