"""Which examples share a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metaindex.training.examples import Example

_SORTED_BATCHES = 50  # examples of so many batches are sorted by length together


def batches(
    examples: Sequence[Example], size: int, seed: int, epoch: int, *, by_length: bool, neighbours: int = 1
) -> list[list[int]]:
    """Places of the examples in each batch of an epoch; fewer than ``size`` are left over and wait for another epoch.

    ``neighbours``: so many examples that follow each other stay together, others in each epoch; at most as many as there are,
    or nothing would be shuffled. Groups are split where ``size`` is no multiple of it.
    """
    rng = np.random.default_rng((seed, epoch))
    turned = np.roll(np.arange(len(examples)), -int(rng.integers(neighbours)))
    whole = len(examples) // neighbours * neighbours
    together = turned[:whole].reshape(-1, neighbours)
    order = rng.permutation(len(together))
    if by_length:
        lengths = np.array([_length(example) for example in examples])[together].mean(axis=1)
        run = max(1, size * _SORTED_BATCHES // neighbours)
        order = np.concatenate(
            [part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(run, len(order), run))]
        )
    # What fills no group comes last, where it parts no other.
    places = np.concatenate([together[order].ravel(), turned[whole:]])
    found: list[list[int]] = places[: len(places) // size * size].reshape(-1, size).tolist()
    # Otherwise lengths would rise and fall in waves.
    return [found[place] for place in rng.permutation(len(found))] if by_length else found


def _length(example: Example) -> int:
    return sum(len(each.text or "") for each in (example.query, example.positive, *example.negatives))
