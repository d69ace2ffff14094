"""Hits as single integers whose order is the order of results: higher scores first, equal ones in the order of addition.

A key is an int64: the score's bits above, made to compare like the score, and below them a place in the order of addition,
counted down. Keys of different documents differ, so the k largest are the same however they are found, on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MISSING = -(2**63)
LAST_PLACE = 2**31 - 1
"""The largest place that a key can hold."""


def encode(scores: Tensor, places: Tensor) -> Tensor:
    """Keys int64 of scores float32 and places (integers in 0..LAST_PLACE) of one shape. NaN counts as -inf, -0.0 as 0.0."""
    import torch

    bits = (torch.where(scores.isnan(), -torch.inf, scores) + 0.0).view(torch.int32).long()
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising << 32) | (LAST_PLACE - places.long())


def decode(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores float32 and places int64 of keys of any shape; -inf and -1 for ``MISSING``."""
    import torch

    rising = keys >> 32
    bits = torch.where(rising < 0, rising ^ 0x7FFFFFFF, rising)
    missing = keys == MISSING
    scores = bits.int().view(torch.float32).masked_fill(missing, -torch.inf)
    return scores, (LAST_PLACE - (keys & 0xFFFFFFFF)).masked_fill(missing, -1)
