"""The loss as its formula says, in float64: one group, one query and one document at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def score(query: torch.Tensor, document: torch.Tensor, r_q: int, r_c: int) -> torch.Tensor:
    return sum((torch.stack([query[i] @ document[j] for j in range(r_c)]).max() for i in range(r_q)), torch.zeros(()).double())


def losses(
    queries: Any, documents: Any, negatives: Any, groups: Any, temperature: float | Sequence[float]
) -> list[torch.Tensor]:
    """Of each group. ``negatives``: for each query a list of documents; float64 holds exp of logits up to 709."""
    found = []
    temperatures = [temperature] * len(groups) if isinstance(temperature, float) else temperature
    for (r_q, r_c), temperature in zip(groups, temperatures):
        each = []
        for place, query in enumerate(queries):
            logits = [score(query, document, r_q, r_c) / temperature for document in documents]
            logits += [score(query, document, r_q, r_c) / temperature for document in negatives[place]]
            each.append(-torch.log(logits[place].exp() / torch.stack(logits).exp().sum()))
        found.append(torch.stack(each).mean())
    return found
