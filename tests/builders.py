"""Snapshots for tests, built in memory without the storage layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Bands, bands
from metaindex.scoring.request import Band, Queries, ScoreRequest
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget, Levels


def documents(rng: np.random.Generator, lengths: Sequence[int], dim: int) -> list[NDArray[np.float32]]:
    """Documents [t, d] of those lengths, of normal numbers scaled to unit vectors on average."""
    return [(rng.standard_normal((t, dim)) / np.sqrt(dim)).astype(np.float32) for t in lengths]


def segment(docs: Sequence[NDArray], first: int, levels: Levels, codes: Bands, sequence: NDArray[np.int64]) -> Segment:
    """The documents as one segment, the longest first; ``sequence`` [rows] are their places in the order of addition."""
    lengths = np.array([len(doc) for doc in docs], dtype=np.int32)
    order = np.argsort(-lengths, kind="stable")
    lengths, sequence = lengths[order], sequence[order]
    stored = []
    for index in range(len(levels)):
        start, width = levels.start(index), levels.width(index)
        rows = int(np.count_nonzero(lengths > start))
        if index and not rows:
            break
        tokens = np.zeros((rows, width, docs[0].shape[1]), dtype=np.float32)
        for row in range(rows):
            kept = docs[order[row]][start : start + width]
            tokens[row, : len(kept)] = kept
        code = codes.at(start)
        stored.append(Level.of(start, width, code, code.encode(tokens)))
    return Segment(f"segment-{first}", len(docs), tuple(stored), lengths, sequence, sequence)


def snapshot(
    docs: Sequence[NDArray],
    codec_name: str,
    *,
    edges: tuple[int, ...] | None = None,
    segments: int = 1,
    sequence: NDArray[np.int64] | None = None,
) -> Snapshot:
    """Documents cut into ``segments`` of about the same size, in a codec or in bands of several. Rows are not documents in
    order: the longest come first."""
    longest = max((len(doc) for doc in docs), default=1)
    levels = Levels(edges) if edges else Levels.doubling(longest)
    places = np.arange(len(docs), dtype=np.int64) if sequence is None else sequence
    cuts = np.linspace(0, len(docs), segments + 1).astype(int)
    built = [segment(docs[a:b], a, levels, bands(codec_name), places[a:b]) for a, b in itertools.pairwise(cuts) if b > a]
    return Snapshot(1, levels, tuple(built), np.empty(0, np.int64))


def queries(tokens: Sequence[NDArray], codec_name: str, width: int | None = None) -> Queries:
    """Ragged queries [r, d], padded with zeros to ``width`` tokens."""
    lengths = np.array([len(query) for query in tokens], dtype=np.int32)
    padded = np.zeros((len(tokens), width or max(1, *lengths, 1), tokens[0].shape[1]), dtype=np.float32)
    for b, query in enumerate(tokens):
        padded[b, : len(query)] = query
    first, *others = bands(codec_name).codecs
    return Queries(first.encode(padded), lengths, {code.name: code.encode(padded) for code in others})


def request(
    asked: Queries, stored: Snapshot, codec_name: str, budget: tuple[int, int] | None = None, **rest: object
) -> ScoreRequest:
    """A request at ``budget``, or with every token."""
    whole = (max(1, asked.parts.codes.shape[1]), stored.levels.tokens)
    dim = asked.parts.codes.shape[2]
    reached = bands(codec_name).below((budget or whole)[1])
    first, *others = reached.codecs
    beyond = tuple(Band(start, code, asked.other(code)) for start, code in zip(reached.edges, others))
    return ScoreRequest(asked, stored, first, dim, Budget(*(budget or whole)), beyond=beyond, **rest)  # type: ignore[arg-type]
