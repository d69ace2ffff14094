"""Seeded vectors that behave like nested embeddings: every prefix of a document's tokens means something, longer ones more.

How a document comes about. A topic is T directions: its token 0 is random, token j > 0 mixes its parent, token
``j - 2**floor(log2(j))``, with a fresh direction, so tokens 1, 2-3, 4-7, ... each add a generation of finer detail.
``TOPIC_SIZE`` documents share a topic. Each keeps to it by its own share, drawn from ``TOPIC_SHARES``, in all its tokens alike:
how near two documents are shows in every token pair, and the more pairs are read the less noise is left in the answer.
A query is about one document: its token i is that document's token i under noise of ``QUERY_SIGNAL``, stronger in higher
dimensions, where random directions interfere less. So one token on both sides ranks many documents right and many wrong, and
every doubling of the budget adds evidence. These vectors are for measuring speed and the loss of plans and codecs. They say
nothing about the quality of any encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property

TOPIC_SIZE = 50
TOPIC_SHARES = (0.4, 0.9)  # between these lies a document's cosine with its topic, token by token
PARENT_SHARE = 0.5  # the cosine between a topic's token and its parent
QUERY_SIGNAL = 5.0  # how many standard deviations of a random inner product a query's token stands out by

_BATCH_VALUES = 32 << 20


@dataclass(frozen=True)
class NestedVectors:
    """``documents`` unit vectors [N, T, d]; the same ``seed`` gives the same vectors on every machine with the same numpy."""

    documents: int
    doc_tokens: int
    dim: int
    seed: int = 0

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """The documents in order, float32 [n, T, d] at a time."""
        for start, stop in self._ranges():
            yield self._batch(start, stop)

    def array(self) -> NDArray[np.float32]:
        """All documents at once, float32 [N, T, d]."""
        out = np.empty((self.documents, self.doc_tokens, self.dim), dtype=np.float32)
        for start, stop in self._ranges():
            out[start:stop] = self._batch(start, stop)
        return out

    def queries(self, count: int, tokens: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``count`` queries float32 [B, R, d] and, int64 [B], the document each is about. Where R exceeds T tokens repeat."""
        random = np.random.default_rng((self.seed, 1))
        about = np.sort(random.choice(self.documents, size=count, replace=count > self.documents))
        sources = np.empty((count, self.doc_tokens, self.dim), dtype=np.float32)
        for start, stop in self._ranges():
            wanted = (about >= start) & (about < stop)
            if wanted.any():
                sources[wanted] = self._batch(start, stop)[about[wanted] - start]
        noise = _unit(random.standard_normal((count, tokens, self.dim), dtype=np.float32))
        share = QUERY_SIGNAL / (QUERY_SIGNAL**2 + self.dim) ** 0.5
        mixed = _mix(sources[:, np.arange(tokens) % self.doc_tokens], noise, share)
        order = random.permutation(count)
        return mixed[order], about[order].astype(np.int64)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        size = max(1, _BATCH_VALUES // (self.doc_tokens * self.dim))
        return ((start, min(start + size, self.documents)) for start in range(0, self.documents, size))

    @cached_property
    def _topics(self) -> NDArray[np.float32]:
        """The topics' directions [topics, T, d]."""
        shape = (-(-self.documents // TOPIC_SIZE), self.doc_tokens, self.dim)
        tokens = _unit(np.random.default_rng((self.seed, 2)).standard_normal(shape, dtype=np.float32))
        generation = 1
        while generation < self.doc_tokens:
            fresh = tokens[:, generation : 2 * generation]
            fresh[:] = _mix(tokens[:, : fresh.shape[1]], fresh, PARENT_SHARE)
            generation *= 2
        return tokens

    def _batch(self, start: int, stop: int) -> NDArray[np.float32]:
        random = np.random.default_rng((self.seed, 3, start))
        shape = (stop - start, self.doc_tokens, self.dim)
        shares = random.uniform(*TOPIC_SHARES, size=(stop - start, 1, 1)).astype(np.float32)
        # Documents of a topic are spread over the whole index, as a real corpus would have them.
        topics = self._topics[np.arange(start, stop) % len(self._topics)]
        return _mix(topics, _unit(random.standard_normal(shape, dtype=np.float32)), shares)


def _mix(base: NDArray[np.float32], fresh: NDArray[np.float32], share: float | NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors whose cosine with ``base`` is about ``share``, for unit vectors that are all but orthogonal."""
    mixed = np.sqrt(1 - np.square(share), dtype=np.float32) * fresh
    mixed += np.multiply(base, share, dtype=np.float32)
    return _unit(mixed)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
