"""When a coarse index is filled, added to, built anew and written to its file: numbers in, decisions out.

Whatever is decided, answers are right: documents that the index lacks are compared without it. What is at stake is time, here
that of writes against that of searches.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

FEW = 1024
"""So many documents are compared one by one faster than anything can be built or kept for them."""
_SHARE_UNSEEN = 64  # one document in so many: comparing them costs a search next to nothing
_SHARE_UNWRITTEN = 8  # a file is written whole, so it is written when it has fallen this far behind
_GROWN = 4


class Standing(NamedTuple):
    """How a coarse index stands to its documents. ``documents`` stand in ours; ``held`` are in it, ``covered`` of those stand;
    it was trained when there were ``trained``; training takes at least ``points``, 0 where there is none."""

    documents: int
    held: int
    covered: int
    trained: int
    points: int

    @property
    def unseen(self) -> int:
        return self.documents - self.covered


def due(standing: Standing, share: int = _SHARE_UNSEEN) -> Literal["nothing", "add", "build"]:
    """What to do for an index that stands so. It is built anew when more than half of it is gone, and when there are four
    times as many documents as its lists and codes were trained for."""
    documents, held, covered, trained, points = standing
    possible = documents >= max(FEW, points)
    if not held:
        return "build" if possible else "nothing"
    if possible and (held > max(2 * covered, FEW) or (points and documents >= _GROWN * trained)):
        return "build"
    return "add" if standing.unseen >= max(FEW, documents // share) else "nothing"


def due_from_file(standing: Standing) -> Literal["nothing", "add", "build"]:
    """The same for an index that is in a file alone: to read it takes so long that more may be missing."""
    return due(standing, _SHARE_UNWRITTEN)


def worth_writing(held: int, in_file: int, *, last: bool) -> bool:
    """Whether a file that has ``in_file`` documents is to be replaced by one of ``held``; ``last``: nobody will ask again."""
    return held - in_file >= max(FEW, in_file // (_SHARE_UNSEEN if last else _SHARE_UNWRITTEN))


def default_nprobe(lists: int, documents: int, count: int) -> int:
    """How many of an index's lists a search for ``count`` of its ``documents`` looks into, where nobody says.

    FAISS's own default is 1. The square root of the lists is where the lists' centroids and what is in the lists cost about the
    same; and there must be several times as many documents in them as are asked for, or it is the lists that choose.
    """
    per_list = max(1.0, documents / lists)
    return min(lists, max(1, round(math.sqrt(lists)), math.ceil(8 * count / per_list)))


def training_sample(documents: int, size: int, centroids: int) -> int:
    """How many of the documents to train on: what k-means takes at most, but for what exceeds a gibibyte of vectors and is not
    needed."""
    return min(documents, max(8 * centroids, min(256 * centroids, (1 << 30) // (4 * size))))
