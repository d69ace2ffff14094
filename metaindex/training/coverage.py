"""How well an input's vectors stand for its content, at every budget.

The contrastive losses are content with vectors that all say the same, and on a small backbone that is where they end: every
budget then finds what one vector finds. Each token of the content should have a vector near to it, among the first few and
nearer ones among more. This is facility location, which ``metaindex.nest`` maximises by choice, here as a loss:
``1 - mean_l max_{j < r} <c_l, v_j>`` over the tokens ``c_l`` that the backbone alone makes of the content, with a soft maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SOFTNESS = 0.05  # cosines within about so much of the best share its gradient, so that no vector is without any


def uncovered(vectors: torch.Tensor, content: torch.Tensor, present: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """The loss of each input [B], the mean over prefixes of ``sizes`` vectors; with gradients for ``vectors``.

    ``vectors`` [B, n, d] and ``content`` [B, L, d] are L2-normalised; ``present``, bool [B, L], has a token in each row.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        similarities = content.float() @ vectors.float().transpose(1, 2)
        weights = present / present.sum(dim=1, keepdim=True)
        losses = []
        for size in sizes:
            first = similarities[..., :size]
            best = ((first / SOFTNESS).softmax(dim=2) * first).sum(dim=2)
            losses.append(1 - (best * weights).sum(dim=1))
        return torch.stack(losses).mean(dim=0)
