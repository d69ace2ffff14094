"""Which segments a compaction writes anew: those that hold removed documents, and small ones beside one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from metaindex.storage.merge import Held


def groups(held: Iterable[Held], most_bytes: int) -> Iterator[list[Held]]:
    """Neighbouring segments that become one, of at most ``most_bytes`` unless a segment alone has more.

    A segment without removed documents stays as it is where it has more than half of ``most_bytes``, or nothing to be merged
    with: so a document is not written again and again by compactions that follow one another.
    """
    group: list[Held] = []
    total = 0
    for one in held:
        nbytes = alive_bytes(one)
        settled = not len(one.removed) and 2 * nbytes > most_bytes
        if group and (settled or total + nbytes > most_bytes):
            yield group
            group, total = [], 0
        group.append(one)
        total += nbytes
        if settled:
            yield group
            group, total = [], 0
    if group:
        yield group


def stays(group: list[Held]) -> bool:
    """Whether a group is a single segment with nothing to leave out."""
    return len(group) == 1 and not len(group[0].removed)


def alive_bytes(one: Held) -> int:
    """What the levels of a segment take without the removed documents."""
    levels = [level for copy in one.segment.copies for level in copy]
    gone = [int(np.searchsorted(one.removed, level.rows)) for level in levels]  # a level holds the first rows
    return sum(level.nbytes - level.nbytes // level.rows * removed for level, removed in zip(levels, gone))
