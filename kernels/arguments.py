"""What kernels are given and hand on: pointers and blocks in named groups.

Numbers that change from call to call stay outside of a kernel's groups, since Triton compiles a group anew for every 1 and
every multiple of 16 in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Table(NamedTuple):
    """Where the documents lie. Token j of row `row` of segment s is ``at = row * widths[j]`` tokens behind ``codes[s, j]``, its
    scale as many behind ``scales[s, j]``.

    Attributes:
        codes, scales: int64 [S, tokens], addresses; `scales` is ``None`` for codecs without.
        widths: int32 [tokens], of the level that each token is in.
        first_rows: int64 [S + 1].
        lengths: int32 [rows]; ``None`` where every document has all tokens.
        places: int32 [rows], in the order of addition; ``None`` where that is the order of rows.
        allow: bool [rows], or ``None`` for all.
    """

    codes: Any
    scales: Any
    widths: Any
    first_rows: Any
    lengths: Any
    places: Any
    allow: Any


class Asked(NamedTuple):
    """The queries: codes [B, R, d], scales float32 [B, R] or ``None``, lengths int32 [B]."""

    codes: Any
    scales: Any
    lengths: Any


class Found(NamedTuple):
    """Scores float32 [B, columns] to fill, or the keys int64 [B, columns], counts int32 [B] and thresholds int64 [B] of
    ``Hits``; the others are ``None``."""

    scores: Any
    keys: Any
    counts: Any
    thresholds: Any


class QueryRows(NamedTuple):
    """Query tokens of a tile, on the chip: where they lie, which there are, and what their maxima are multiplied by: their
    scale, or 1, and 0 for those that don't count. All are [rows]."""

    pointers: Any
    there: Any
    weights: Any


class Tokens(NamedTuple):
    """Document tokens of a tile, on the chip: the rows of ``Table`` for their segment, [documents or 1, tokens] of codes and,
    where there are any, scales, and [1, tokens] of widths."""

    codes: Any
    scales: Any
    widths: Any
