"""The codecs' encoders on the device, bit for bit what the numpy codecs give: for queries that never were on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def encode(codec: str, tokens: Tensor, codes: Tensor, scales: Tensor | None) -> None:
    """Encode float32 tokens [..., d] into ``codes`` [..., d], and for int8 ``scales`` float32 [...]."""
    import torch

    if scales is None:
        codes.copy_(tokens)  # a conversion that rounds to nearest even
        return
    # A divisor on the host would become a multiplication with its reciprocal on a GPU, which rounds otherwise.
    torch.div(tokens.abs().amax(dim=-1), scales.new_full((), 127), out=scales)
    # A token whose scale underflows to zero decodes to zero; dividing by one keeps its codes zero too.
    empty = scales == 0
    divided = tokens / scales.masked_fill(empty, 1)[..., None]
    codes.copy_(divided.clamp(-127, 127).round().masked_fill(empty[..., None], 0))


def normalized(tokens: Tensor) -> Tensor:
    """Each vector of float32 tokens [..., d] divided by its L2 norm; a zero vector stays zero. In float64, as at the door."""
    norms = tokens.double().square().sum(dim=-1, keepdim=True).sqrt()
    return (tokens.double() / norms.masked_fill(norms == 0, 1)).float()
