"""Seeded vectors with the structure of nested embeddings: coarse tokens first, later ones finer, every prefix an embedding.

A **topic** is a tree of directions, its aspects: aspect 0 is the topic as a whole, aspect a > 0 mixes its parent, aspect
``a - 2**floor(log2(a))``, with a fresh direction, so each generation adds finer detail. About ``TOPIC_SIZE`` documents share a
topic, and a document is about ``FACETS`` of them. It keeps to each by a share of its own, the same in all aspects, drawn from
``TOPIC_SHARES``: its version of an aspect mixes the topic's with a direction of the document's own.

Token 0 is the summary of a document, what one vector could hold: its topics as wholes, the first with weight 1 and each further
one with ``1 - difficulty`` of the one before. Token 1 is their even mixture. From there on the topics take turns, token j
holding aspect ``j // FACETS`` of topic ``j % FACETS``.

A query is a noisy partial view of a document: tokens are the aspects of one of its topics, one that it keeps to, each at a
cosine of about ``QUERY_SHARE``. Its best answers are other documents on that topic, as their first topic or as a lesser one. A
lesser topic hardly shows in a summary, so (1,1) ranks those documents low, among very many that are similar by chance, and the
more so the greater the ``difficulty``; later tokens show it plainly. With ``difficulty`` 0 nothing is lesser.

These vectors measure speed and what plans and codecs lose. They say nothing about the quality of any encoder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property

TOPIC_SIZE = 60
FACETS = 2
TOPIC_SHARES = (0.3, 0.95)  # between these lies the cosine of a document's aspects with its topic's
TRUE_SHARE = 0.8  # a query is about a topic that its document keeps to at least so much
PARENT_SHARE = 0.5  # the cosine between an aspect and its parent
QUERY_SHARE = 0.9  # the cosine between a query token and what it views

_BATCH_VALUES = 32 << 20
_BLOCK_VALUES = 1 << 17


@dataclass(frozen=True)
class NestedVectors:
    """``documents`` unit vectors [N, T, d]; the same arguments give the same vectors on every machine with the same numpy.

    ``difficulty`` from 0 to 1: how much of a document its first token leaves out.
    """

    documents: int
    doc_tokens: int
    dim: int
    seed: int = 0
    difficulty: float = 0.45

    def batches(self, threads: int = 1) -> Iterator[NDArray[np.float32]]:
        """The documents in order, float32 [n, T, d] at a time, made by so many threads, each a batch ahead."""
        _ = self._topics  # made once, before threads ask for them
        with ThreadPoolExecutor(threads) as pool:
            coming = deque[Future[NDArray[np.float32]]]()
            for start, stop in self._ranges():
                coming.append(pool.submit(self._batch, start, stop))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def array(self) -> NDArray[np.float32]:
        """All documents at once, float32 [N, T, d]."""
        out = np.empty((self.documents, self.doc_tokens, self.dim), dtype=np.float32)
        for start, stop in self._ranges():
            out[start:stop] = self._batch(start, stop)
        return out

    def queries(self, count: int, tokens: int, among: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``count`` queries float32 [B, R, d] and, int64 [B], the document each is about. Tokens repeat where R exceeds the
        aspects of a topic. ``among``: only about the first so many documents, which saves making all of them."""
        among = self.documents if among is None else min(among, self.documents)
        random = np.random.default_rng((self.seed, 1))
        about = random.choice(among, size=count, replace=count > among).astype(np.int64)
        facet = random.integers(0, FACETS, count)
        sources = np.empty((count, tokens, self.dim), dtype=np.float32)
        for start, stop in self._ranges():
            wanted = np.flatnonzero((about >= start) & (about < stop))
            if len(wanted):
                shares, aspects = self._aspects(start, stop)
                for query in wanted:
                    keeping = np.flatnonzero(shares[:, facet[query]] >= TRUE_SHARE)
                    if len(keeping):  # the next document that keeps to its topic, in a circle
                        at = np.searchsorted(keeping, about[query] - start)
                        about[query] = start + keeping[at % len(keeping)]
                    chosen = aspects[about[query] - start, facet[query]]
                    sources[query] = chosen[np.arange(tokens) % len(chosen)]
        noise = _unit(random.standard_normal((count, tokens, self.dim), dtype=np.float32))
        return _mix(sources, noise, QUERY_SHARE), about

    def _ranges(self) -> Iterator[tuple[int, int]]:
        size = max(1, _BATCH_VALUES // (self.doc_tokens * self.dim))
        return ((start, min(start + size, self.documents)) for start in range(0, self.documents, size))

    @property
    def _count(self) -> int:
        """Aspects of a topic: as many as a document has tokens for."""
        return -(-self.doc_tokens // FACETS)

    @cached_property
    def _topics(self) -> NDArray[np.float32]:
        """The topics' aspects [topics, aspects, d]."""
        shape = (max(1, self.documents * FACETS // TOPIC_SIZE), self._count, self.dim)
        aspects = _unit(np.random.default_rng((self.seed, 2)).standard_normal(shape, dtype=np.float32))
        generation = 1
        while generation < self._count:
            fresh = aspects[:, generation : 2 * generation]
            fresh[:] = _mix(aspects[:, : fresh.shape[1]], fresh, PARENT_SHARE)
            generation *= 2
        return aspects

    def _aspects(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How much documents keep to their topics [n, FACETS], and their versions of the aspects [n, FACETS, aspects, d]."""
        random = np.random.default_rng((self.seed, 3, start))
        shape = (stop - start, FACETS)
        topics = random.integers(0, len(self._topics), shape)
        shares = random.uniform(*TOPIC_SHARES, size=shape).astype(np.float32)
        aspects = random.standard_normal((*shape, self._count, self.dim), dtype=np.float32)
        step = max(1, _BLOCK_VALUES // (FACETS * self._count * self.dim))
        for at in range(0, len(aspects), step):  # what is worked on stays in a cache
            block = slice(at, at + step)
            aspects[block] = _mix(self._topics[topics[block]], _unit(aspects[block]), shares[block, :, None, None])
        return shares, aspects

    def _batch(self, start: int, stop: int) -> NDArray[np.float32]:
        _, aspects = self._aspects(start, stop)
        by_token = aspects.transpose(0, 2, 1, 3).reshape(len(aspects), -1, self.dim)
        tokens = np.ascontiguousarray(by_token[:, : self.doc_tokens])
        wholes = aspects[:, :, 0]
        weights = (1 - self.difficulty) ** np.arange(FACETS, dtype=np.float32)
        tokens[:, 0] = _unit(np.einsum("f,nfd->nd", weights, wholes))
        if self.doc_tokens > 1:
            tokens[:, 1] = _unit(wholes.sum(axis=1))
        return tokens


def _mix(base: NDArray[np.float32], fresh: NDArray[np.float32], share: float | NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors whose cosine with ``base`` is about ``share``, for unit vectors that are all but orthogonal."""
    mixed = np.sqrt(1 - np.square(share), dtype=np.float32) * fresh
    mixed += np.multiply(base, share, dtype=np.float32)
    return _unit(mixed)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
