"""How well an input's vectors stand for its content.

The contrastive losses are content with vectors that all say the same, and on a small backbone that is where they end: every
budget then finds what one vector finds. So each token of the content is asked to have a vector near to it. This is facility
location, which ``metaindex.nest`` maximises by choice, here as a loss: ``1 - mean_l max_j <c_l, v_j>`` over the tokens ``c_l``
that the backbone alone makes of the content, with a soft maximum over all vectors. Which of them come first is left to the
losses of the budgets.
"""

from __future__ import annotations

import torch

SOFTNESS = 0.05  # vectors within about so much of the best are drawn to a token with it, others pushed away a little


def uncovered(vectors: torch.Tensor, content: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The loss of each input [B], with gradients for ``vectors``.

    ``vectors`` [B, n, d] and ``content`` [B, L, d] are L2-normalised; ``present``, bool [B, L], has a token in each row.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        similarities = content.float() @ vectors.float().transpose(1, 2)
        best = ((similarities / SOFTNESS).softmax(dim=2) * similarities).sum(dim=2)
        return 1 - (best * present).sum(dim=1) / present.sum(dim=1)
