"""Fixed-dimensional encodings: one vector per document and one per query whose inner product estimates their MaxSim.

For embeddings that are not nested no single token stands for a document, and a mean of its tokens loses what MaxSim looks
for. MUVERA (Dhulipala et al., arXiv 2405.19504) cuts space into cells by the signs of a few random inner products (SimHash), so
that similar tokens tend to share a cell. A query's tokens are summed cell by cell and a document's averaged, and the two are
compared cell by cell: in each, the average stands for the maximum. A cell where a document has no token takes the one whose
signs differ least, for MaxSim finds every query token a partner. Several independent ``repetitions`` side by side average the
chance out.

One thing is done otherwise here: an average is scaled to the mean norm of its tokens. Averaging shortens, the more so the less
alike the tokens of a cell are, while the maximum that it stands for does not shrink; docs/decisions/0013 has the numbers.

That makes ``repetitions * 2**bits * d`` numbers. Two random projections, which keep inner products right on average, bring
them down: an ``inner`` one of every token, and a last one of the whole to ``dim`` numbers, a count sketch: each number goes,
with a random sign, to a random place, and what meets there is added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 16 << 20
_CANCELLED = np.float32(0.01)  # an average this much shorter than its tokens has no direction worth keeping
_TINY = np.float32(1e-30)


@dataclass(frozen=True)
class Fde:
    """How tokens become one vector.

    ``repetitions``: independent partitions. ``bits``: each has ``2**bits`` cells. ``inner``: dimensions that each token is
    projected to, 0 for none. ``dim``: numbers in the final vector, 0 for all there are. ``seed``: of all that is random.
    """

    repetitions: int = 20
    bits: int = 3
    inner: int = 0
    dim: int = 10240
    seed: int = 0

    def __str__(self) -> str:
        return f"fde({','.join(f'{name}={getattr(self, name)}' for name in self.__dataclass_fields__)})"

    def size(self, dim: int) -> int:
        """Numbers in the vector of a document whose tokens have ``dim``."""
        return self.dim or self.repetitions * 2**self.bits * (self.inner or dim)


class FdeEncoder:
    """Encodes tokens of ``dim`` numbers. Equal settings give equal encodings, on every machine and by every numpy."""

    def __init__(self, fde: Fde, dim: int) -> None:
        self.fde, self.dim, self.size = fde, dim, fde.size(dim)
        # The one generator of numpy whose stream is frozen: stored encodings must be met by the queries of later years.
        random = np.random.RandomState(fde.seed)
        repetitions, cells, width = fde.repetitions, 2**fde.bits, fde.inner or dim
        self._planes = random.standard_normal((dim, repetitions * fde.bits)).astype(np.float32)
        self._inner = None
        if fde.inner:
            self._inner = _signs(random, (repetitions, dim, width)) / np.float32(np.sqrt(width))
        self._sketches = [_Sketch(random, cells * width, fde.dim) for _ in range(repetitions)] if fde.dim else None
        numbers = np.arange(cells)
        self._distances = np.array([[bin(one ^ other).count("1") for other in numbers] for one in numbers], np.uint8)

    def documents(self, tokens: NDArray[np.float32], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """Documents [N, T, d] of ``lengths`` [N], each at least 1, as float32 [N, size]."""
        return self._encoded(tokens, lengths, documents=True)

    def queries(self, tokens: NDArray[np.float32], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """Queries [B, R, d] of ``lengths`` [B] as float32 [B, size]: ``queries(q) @ documents(d).T`` estimates MaxSim."""
        return self._encoded(tokens, lengths, documents=False)

    def _encoded(self, tokens: NDArray[np.float32], lengths: NDArray[np.integer], *, documents: bool) -> NDArray[np.float32]:
        encoded = np.zeros((len(tokens), self.size), np.float32)
        tokens_, cells, width = tokens.shape[1], 2**self.fde.bits, self.fde.inner or self.dim
        per_item = 4 * (cells * (2 * tokens_ + 2 * width) + tokens_ * (tokens_ + width))
        step = max(1, _BLOCK_BYTES // per_item)
        for start in range(0, len(tokens), step):
            block = slice(start, start + step)
            self._encode_block(tokens[block], lengths[block], encoded[block], documents)
        return encoded

    def _encode_block(
        self, tokens: NDArray[np.float32], lengths: NDArray[np.integer], out: NDArray[np.float32], documents: bool
    ) -> None:
        valid = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]
        products = tokens @ tokens.transpose(0, 2, 1) if documents else None
        for repetition, cells in enumerate(self._cells(tokens)):
            weights = self._members(cells, valid) if products is None else self._averages(cells, valid, products)
            projected = tokens if self._inner is None else tokens @ self._inner[repetition]
            found = (weights @ projected).reshape(len(tokens), -1)
            if self._sketches is not None:
                self._sketches[repetition].add(found, out)
            else:
                width = found.shape[1]
                out[:, repetition * width : (repetition + 1) * width] = found
        if documents:
            out /= self.fde.repetitions

    def _cells(self, tokens: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
        """For each repetition the cell [n, T] of every token."""
        bits = self.fde.bits
        above = (tokens @ self._planes) > 0
        for start in range(0, self._planes.shape[1], bits):
            yield above[..., start : start + bits] @ (1 << np.arange(bits))

    def _members(self, cells: NDArray[np.int64], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Which token is in which cell, float32 [n, cells, T]."""
        numbers = np.arange(len(self._distances))[None, :, None]
        return np.asarray((cells[:, None, :] == numbers) & valid[:, None, :], dtype=np.float32)

    def _averages(
        self, cells: NDArray[np.int64], valid: NDArray[np.bool_], products: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The share of each token in each cell's vector, float32 [n, cells, T]; an empty cell takes the nearest token, of
        several the first. ``products`` [n, T, T]: the tokens' inner products with one another."""
        weights = self._members(cells, valid)
        counts = weights.sum(axis=2)
        item, empty = np.nonzero(counts == 0)
        away = self._distances[empty[:, None], cells[item]]
        away[~valid[item]] = 255
        weights[item, empty, away.argmin(axis=1)] = 1
        weights /= np.maximum(counts, 1)[:, :, None]
        norms = np.sqrt(np.einsum("ntt->nt", products))
        wanted = (weights @ norms[:, :, None])[:, :, 0]
        squares = ((weights @ products) * weights).sum(axis=2)
        # Tokens that cancel out leave an average of rounding errors, which is not to be blown up.
        weights *= (wanted / np.sqrt(np.maximum(squares, np.square(_CANCELLED * wanted)) + _TINY))[:, :, None]
        return np.asarray(weights)


class _Sketch:
    """A count sketch of ``length`` numbers to ``size``. Every place gets as many of them as any other, or one more."""

    def __init__(self, random: np.random.RandomState, length: int, size: int) -> None:
        self._folds = -(-length // size)
        self._sources = random.permutation(self._folds * size)  # those from ``length`` on are nothing
        self._signs = _signs(random, (self._folds * size,))
        self._signs[self._sources >= length] = 0
        self._sources[self._sources >= length] = 0

    def add(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Add the sketch of ``values`` [n, length] to ``out`` [n, size]."""
        placed = values[:, self._sources]
        placed *= self._signs
        out += placed.reshape(len(values), self._folds, -1).sum(axis=1)


def _signs(random: np.random.RandomState, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (2 * random.randint(0, 2, shape) - 1).astype(np.float32)
