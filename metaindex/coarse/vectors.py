"""One vector for each document and each query, whose inner product the coarse stage goes by.

**The first token.** In a nested embedding it is the view of a document that was trained to stand alone. Against one document
vector MaxSim has no maximum to take, so ``sum_i max_j <q_i, d_j> = sum_i <q_i, d_0> = <sum_i q_i, d_0>``: the sum of a query's
tokens finds just what a scan at (r_q, 1) finds. Where level 0 holds several tokens, it is still the first one.

**fde.** A fixed-dimensional encoding of all tokens, see ``metaindex.coarse.fde``.

Documents are encoded from what is stored, never from what is being added: whatever was added when, by whom, and through which
merges, its vector is the same, and the same code serves a rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaindex.coarse.fde import FdeEncoder
from metaindex.coarse.spec import CoarseSpec
from metaindex.codecs import Parts
from metaindex.storage.reading import runs_of
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.tensors import ALIGNMENT

VERSION = 1
"""Of what this module makes of the same tokens. An index that was filled with another version's vectors is of no use."""
_BLOCK_BYTES = 32 << 20


class Vectors(Protocol):
    """``dim``: numbers in a token; ``size``: in a vector. ``tokens``: how many of a document count, ``None`` for all."""

    dim: int
    size: int
    tokens: int | None

    def documents(self, tokens: NDArray[np.float32], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """Documents [n, T, d] of ``lengths`` [n] as float32 [n, size]."""

    def queries(self, tokens: NDArray[np.float32], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        """Queries [B, R, d] of ``lengths`` [B], zeros past them, as float32 [B, size]."""


class FirstToken:
    """Documents by their first token, queries by the sum of theirs."""

    tokens: int | None = 1

    def __init__(self, dim: int) -> None:
        self.dim = self.size = dim

    def documents(self, tokens: NDArray[np.float32], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(tokens[:, 0])

    def queries(self, tokens: NDArray[np.float32], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
        within = np.arange(tokens.shape[1]) < lengths[:, None]
        return np.asarray(np.einsum("brd,br->bd", tokens, within.astype(np.float32)), dtype=np.float32)


class FdeVectors(FdeEncoder):
    """Documents and queries by all of their tokens."""

    tokens: int | None = None


def vectors(spec: CoarseSpec, dim: int) -> Vectors:
    return FirstToken(dim) if spec.fde is None else FdeVectors(spec.fde, dim)


def encoded(made: Vectors, snapshot: Snapshot, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """The vectors of the documents at ``rows``, in that order, some megabytes at a time: float32 [n, size]."""
    most = made.tokens or snapshot.levels.tokens
    per_document = 4 * (most * made.dim + made.size)
    step = max(1, _BLOCK_BYTES // per_document)
    for start in range(0, len(rows), step):
        tokens, lengths = stored_tokens(snapshot, rows[start : start + step], most, made.dim)
        yield made.documents(tokens, lengths)


def stored_tokens(
    snapshot: Snapshot, rows: NDArray[np.int64], most: int, dim: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The first ``most`` tokens of the documents at ``rows`` [n], decoded, zeros past a document's length: float32 [n, T, d]
    with T the longest's, and the lengths [n]."""
    lengths = np.minimum(snapshot.lengths_at(rows), most).astype(np.int32)
    longest = int(lengths.max(initial=1))
    tokens = np.zeros((len(rows), longest, dim), np.float32)
    at = np.searchsorted(snapshot.first_rows, rows, side="right") - 1
    for number in np.unique(at):
        places = np.flatnonzero(at == number)
        inside = rows[places] - snapshot.first_rows[number]
        order = np.argsort(inside, kind="stable")  # files are read front to back
        _fill(snapshot.segments[number], inside[order], places[order], tokens)
    return tokens, lengths


def _fill(segment: Segment, inside: NDArray[np.int64], places: NDArray[np.int64], tokens: NDArray[np.float32]) -> None:
    for level in segment.levels:
        reach = int(np.searchsorted(inside, level.rows))  # a level holds a segment's first rows
        kept = min(level.width, tokens.shape[1] - level.start)
        if kept <= 0 or not reach:
            return
        done = 0
        for codes, scales in _parts(level, inside[:reach]):
            cut = Parts(codes[:, :kept], None if scales is None else scales[:, :kept])
            tokens[places[done : done + len(codes)], level.start : level.start + kept] = level.codec.decode(cut)
            done += len(codes)


def _parts(level: Level, rows: NDArray[np.int64]) -> Iterator[Parts]:
    """What a level holds of ``rows``, rising; where memory is limited, in as many pieces as that takes."""
    reader = level.reader
    if reader is None:
        codes, scales = level.parts
        yield Parts(codes[rows], None if scales is None else scales[rows])
        return
    with reader.memory.lease(reader.room(1) + ALIGNMENT, reader.room(len(rows)) + ALIGNMENT) as granted:
        memory = np.empty(granted, np.uint8)
        buffer = memory[-memory.ctypes.data % ALIGNMENT :]
        per_row = reader.room(1)
        step = max(1, (granted - ALIGNMENT) // per_row)
        for start in range(0, len(rows), step):
            piece = rows[start : start + step]
            yield reader.carve(len(piece), runs_of(piece), buffer)[0]
