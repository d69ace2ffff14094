"""What operations write: poisoned before, compared after."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metaindex.device import keys
from metaindex.device.operations import Hits
from tests.tolerances import score_tolerance

_POISON = 2**62  # a key above all others, if anybody took it for one


def poisoned(*shape: int, device: torch.device | str = "cpu") -> Tensor:
    """Room for scores."""
    return torch.full(shape, torch.nan, device=device)


def room(batch: int, capacity: int, thresholds: Tensor | None = None, device: torch.device | str = "cpu") -> Hits:
    """Hits with one key each already, and poison where no key is."""
    hits = Hits.empty(batch, capacity, device)
    hits.keys.fill_(_POISON)
    hits.keys[:, 0] = torch.arange(batch)
    hits.counts.fill_(1)
    if thresholds is not None:
        hits.thresholds.copy_(thresholds)
    return hits


def assert_scores(found: Tensor, expected: Tensor) -> None:
    finite = expected[torch.isfinite(expected)].numpy()
    np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), **score_tolerance(finite))


def assert_hits(found: Hits, expected: Hits) -> None:
    """The same documents, with scores within the tolerance, behind what was there before; nothing else is written."""
    assert found.counts.tolist() == expected.counts.tolist()
    for b, count in enumerate(expected.counts.tolist()):
        assert found.keys[b, 0] == b
        assert (found.keys[b, count:] == _POISON).all()
        one, other = (keys.decode(hits.keys[b, 1:count].cpu()) for hits in (found, expected))
        mine, theirs = one[1].argsort(), other[1].argsort()
        assert one[1][mine].tolist() == other[1][theirs].tolist()
        assert_scores(one[0][mine], other[0][theirs])
