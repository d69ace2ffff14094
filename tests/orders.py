"""The orders of ``nest`` in numpy: the law that the compiled ones are held to, bit for bit.

Each function takes a document float32 [t, d] and gives vectors float32 [k, d] and for each the place of the token it is, -1
where it is none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Nested = tuple[NDArray[np.float32], list[int]]


def products(tokens: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products [t, u], each one chain of products and sums from the first dimension to the last."""
    sums = np.zeros((len(tokens), len(others)), np.float32)
    for k in range(tokens.shape[1]):
        sums += np.multiply.outer(tokens[:, k], others[:, k])
    return sums


def mean(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised mean [d]; zeros where tokens cancel out."""
    found = np.add.accumulate(tokens.astype(np.float64), axis=0)[-1] / len(tokens)
    square = np.add.accumulate(found * found)[-1]
    return (found / np.sqrt(square) if square > 0 else found).astype(np.float32)


def on_grid(similarities: NDArray[np.float32], largest: np.float32, count: int) -> NDArray[np.float32]:
    """Similarities whose sums and differences over ``count`` tokens are exact in float64: the digits that could not are
    rounded away, some 40 binary digits below the largest."""
    step = 2.0 ** (int(np.frexp(largest)[1]) + (count - 1).bit_length() + 3 - 53)
    shift = np.float32(1.5 * 2.0**23 * step)
    return np.where(np.abs(similarities) < np.float32(2.0**22 * step), (similarities + shift) - shift, similarities)


def facility(tokens: NDArray[np.float32], n: int) -> Nested:
    """Greedy facility location by its definition: every step adds up the gain of every token anew."""
    first = mean(tokens)
    everything = np.vstack([tokens, first])
    largest = np.max([products(token[None], token[None])[0, 0] for token in everything])
    similarities = on_grid(products(tokens, everything), largest, len(tokens)).astype(np.float64)
    similarities, covered = similarities[:, :-1], similarities[:, -1]
    chosen: list[int] = []
    for _ in range(min(n - 1, len(tokens))):
        gains = np.maximum(similarities - covered[:, None], 0).sum(axis=0)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        covered = np.maximum(covered, similarities[:, chosen[-1]])
    return np.vstack([first, tokens[chosen]]), [-1, *chosen]


def sample(tokens: NDArray[np.float32], n: int, seed: int = 0) -> Nested:
    """Draws by the squared distance to the nearest vector chosen so far."""
    first = mean(tokens)
    distances = np.full(len(tokens), np.finfo(np.float32).max)
    squares = np.diag(products(tokens, tokens))
    newest, square = first, products(first[None], first[None])[0, 0]
    chosen: list[int] = []
    for step in range(1, min(n - 1, len(tokens)) + 1):
        apart = (squares + square) - 2 * products(tokens, newest[None])[:, 0]
        distances = np.minimum(distances, np.maximum(apart, np.float32(0)))
        sums = np.add.accumulate(np.maximum(distances, 0).astype(np.float64))
        # Distances of zero, of twins of what was chosen, are drawn when nothing else is left, in order.
        beyond = np.flatnonzero((sums > draw(seed, step) * sums[-1]) if sums[-1] else (distances == 0))
        chosen.append(int(beyond[0]))
        newest, square = tokens[chosen[-1]], squares[chosen[-1]]
        distances[chosen[-1]] = -1
    return np.vstack([first, tokens[chosen]]), [-1, *chosen]


def draw(seed: int, step: int) -> float:
    """The number in [0, 1) that SplitMix64, started from ``seed``, gives at ``step``."""
    bits = (seed + 0x9E3779B97F4A7C15 * step) % 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return ((bits ^ (bits >> 31)) >> 11) * 2.0**-53
