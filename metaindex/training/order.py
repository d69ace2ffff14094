"""Which examples share a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metaindex.training.examples import Example

_SORTED_BATCHES = 50  # examples of so many batches are sorted by length together


def batches(examples: Sequence[Example], size: int, seed: int, epoch: int, *, by_length: bool) -> list[list[int]]:
    """Places of the examples in each batch of an epoch; fewer than ``size`` are left over and wait for another epoch."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(examples))
    if by_length:
        lengths = np.array([_length(each) for each in examples])
        run = size * _SORTED_BATCHES
        order = np.concatenate(
            [part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(run, len(order), run))]
        )
    found: list[list[int]] = order[: len(order) // size * size].reshape(-1, size).tolist()
    # Otherwise lengths would rise and fall in waves.
    return [found[place] for place in rng.permutation(len(found))] if by_length else found


def _length(example: Example) -> int:
    return sum(len(each.text or "") for each in (example.query, example.positive, *example.negatives))
