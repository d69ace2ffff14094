"""Meta Tokens as ids beyond a backbone's vocabulary.

The backbone then sees one ordinary sequence of ids. Its own class places images, counts positions and makes masks, and this
works for every architecture that looks its inputs up in one table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class InputTable(nn.Module):
    """A backbone's table of input embeddings, and behind it that of ``count`` Meta Tokens, with ids from ``first`` on."""

    def __init__(self, base: nn.Module, count: int, first: int) -> None:
        super().__init__()
        weight = base.weight
        assert isinstance(weight, torch.Tensor)
        self.base, self.first = base, first
        # Never in less than float32: the steps of training would be lost in rounding.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        table = torch.empty(count, weight.shape[1], dtype=dtype, device=weight.device)
        # As spread as the tokens that the backbone knows, so that it meets nothing unheard of.
        nn.init.normal_(table, std=float(weight.detach().float().std()))
        self.meta_tokens = nn.Parameter(table)

    @property
    def weight(self) -> torch.Tensor:
        """The backbone's own table [vocabulary, hidden]; some classes ask for its dtype and device."""
        weight = self.base.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    @property
    def ids(self) -> torch.Tensor:
        """The ids of the Meta Tokens, on the CPU."""
        return torch.arange(self.first, self.first + len(self.meta_tokens))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        is_meta = ids >= self.first
        plain: torch.Tensor = self.base(ids.masked_fill(is_meta, 0))
        own = nn.functional.embedding((ids - self.first).clamp(min=0), self.meta_tokens)
        return torch.where(is_meta.unsqueeze(-1), own.to(plain.dtype), plain)


def attach(backbone: Any, count: int) -> InputTable:
    """Put ``count`` Meta Tokens behind the vocabulary of a transformers model.

    Raises:
        ValueError: it has Meta Tokens already.
    """
    base = backbone.get_input_embeddings()
    if isinstance(base, InputTable):
        raise ValueError("backbone: it has Meta Tokens already; load it anew, or use the MetaEmbed that it belongs to")
    image = getattr(backbone.config, "image_token_id", None)
    table = InputTable(base, count, max(base.weight.shape[0], -1 if image is None else image + 1))
    backbone.set_input_embeddings(table)
    return table


def selected(states: torch.Tensor, starts: torch.Tensor, first: int, count: int, projection: nn.Module | None) -> torch.Tensor:
    """The vectors [B, count, d] of Meta Tokens ``first`` and on, projected, L2-normalised, float32.

    ``states``: the backbone's last ones [B, L, hidden]. ``starts``: how many tokens come before a row's Meta Tokens [B].
    """
    places = starts.to(states.device)[:, None] + first + torch.arange(count, device=states.device)
    chosen = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    if projection is not None:
        chosen = projection(chosen.to(next(projection.parameters()).device))
    return nn.functional.normalize(chosen.float(), dim=-1)  # divides by no less than 1e-12, so zeros stay zeros
