"""Where scores go: into a tensor, or as keys of metaindex.device.keys behind the hits there are."""

from __future__ import annotations

import triton
import triton.language as tl

_LAST_PLACE = tl.constexpr(2**31 - 1)
_LARGEST_KEY = tl.constexpr(2**63 - 1)


@triton.jit
def keys_of(scores, places):
    """``metaindex.device.keys.encode`` for scores that are no NaN."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    rising = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising.to(tl.int64) << 32) | (_LAST_PLACE - places.to(tl.int64))


@triton.jit
def put(found, columns, scores, first_query, batch, column, there, row, wanted, table, SHAPE: tl.constexpr):
    """Put the scores [queries, documents] of the documents at ``row`` int64 [documents] of the snapshot where they belong.

    With a tensor they go to ``column`` [documents] where they are ``there`` [documents], -inf where they are not ``wanted``
    [documents]. With hits, the wanted ones above the threshold of their query are appended.
    """
    query = first_query + tl.arange(0, SHAPE.tile.queries)
    asked = query < batch
    first = query.to(tl.int64) * columns
    scores = tl.where(scores == scores, scores, -float("inf"))
    if found.scores is not None:
        scores = tl.where(wanted[None, :], scores, -float("inf"))
        tl.store(found.scores + first[:, None] + column[None, :], scores, mask=asked[:, None] & there[None, :])
    else:
        place = row
        if table.places is not None:
            place = tl.load(table.places + row, mask=wanted, other=0).to(tl.int64)
        keys = keys_of(scores, place[None, :])
        threshold = tl.load(found.thresholds + query, mask=asked, other=_LARGEST_KEY)
        hit = (keys > threshold[:, None]) & wanted[None, :]
        hits = tl.sum(hit.to(tl.int32), axis=1)
        # One addition for all of a query's hits reserves their places; mostly there are none, and nothing is added.
        first += tl.atomic_add(found.counts + query, hits, mask=hits > 0, sem="relaxed")
        at = first[:, None] + tl.cumsum(hit.to(tl.int32), axis=1) - 1
        tl.store(found.keys + at, keys, mask=hit)
