"""The orders of ``nest`` in numpy: the law that the compiled ones are held to, bit for bit.

Each function takes a document float32 [t, d] and gives vectors float32 [k, d] and for each the place of the token it is, -1
where it is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Nested = tuple[NDArray[np.float32], list[int]]


def products(tokens: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products [t, u], each one chain of products and sums from the first dimension to the last."""
    sums = np.zeros((len(tokens), len(others)), np.float32)
    for k in range(tokens.shape[1]):
        sums += np.multiply.outer(tokens[:, k], others[:, k])
    return sums


def in_order(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over the first axis, one number after the other, from zero on."""
    return 0.0 + np.add.accumulate(numbers, axis=0)[-1]


def mean(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normalised mean [d]; zeros where tokens cancel out."""
    found = in_order(tokens.astype(np.float64)) / len(tokens)
    square = in_order(found * found)
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


def clusters(tokens: NDArray[np.float32], n: int) -> Nested:
    """Ward's hierarchical clustering from the whole down: of the cluster that loses most by being one, the smaller part."""
    tree = ward(tokens)
    open_clusters, vectors, places = [tree], [], []

    def take(cluster: Cluster) -> None:
        single = len(cluster.places) == 1
        vectors.append(tokens[cluster.places[0]] if single else cluster_mean(tokens[cluster.places]))
        places.append(cluster.places[0] if single else -1)

    take(tree)
    while len(vectors) < min(n, len(tokens)):
        split = max((each for each in open_clusters if each.parts), key=lambda each: (each.height, -each.places[0]))
        open_clusters.remove(split)
        one, other = split.parts
        take(one if len(other.places) > len(one.places) else other)
        open_clusters += [one, other]
    return np.array(vectors), places


@dataclass(frozen=True, eq=False)
class Cluster:
    """``places`` of tokens: those of the part with the earliest token first."""

    places: list[int]
    parts: tuple[Cluster, ...] = ()
    height: np.float32 = np.float32(0)


def ward(tokens: NDArray[np.float32]) -> Cluster:
    """The tree by chains of nearest neighbours: equal to merging the two nearest clusters each time, but for ties."""
    squares = np.diag(products(tokens, tokens))
    apart = squares[None, :] + squares[:, None] - 2 * products(tokens, tokens)
    scale = np.float32(2.0 ** -max(-100, int(np.frexp(squares.max())[1])))
    apart = np.where(apart > 0, apart, np.float32(0)) * scale
    np.fill_diagonal(apart, np.inf)
    found = [Cluster([place]) for place in range(len(tokens))]
    sizes = np.ones(len(tokens), np.float32)
    alive, chain = list(range(len(tokens))), []
    while len(alive) > 1:
        chain = chain or [alive[0]]
        tip = chain[-1]
        following = alive[int(np.argmin(apart[tip, alive]))]
        if len(chain) == 1 or apart[tip, following] < apart[tip, chain[-2]]:
            chain.append(following)
            continue
        kept, left = sorted(chain[-2:])
        chain = chain[:-2]
        height, a, b = apart[kept, left], sizes[kept], sizes[left]
        joined = ((a + sizes) * apart[kept] + (b + sizes) * apart[left] - sizes * height) / (a + b + sizes)
        apart[kept] = apart[:, kept] = np.where(joined > 0, joined, np.float32(0))
        apart[kept, kept] = np.inf
        sizes[kept] += sizes[left]
        alive.remove(left)
        parts = found[kept], found[left]
        found[kept] = Cluster(parts[0].places + parts[1].places, parts, height)
    return found[0]


def cluster_mean(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean [d] of tokens [t, d], as long as they are on average; zeros where they cancel out."""
    exact = tokens.astype(np.float64)
    total = in_order(exact)
    square = in_order(total * total)
    lengths = in_order(np.sqrt(in_order((exact * exact).T)))
    return (total * (lengths / len(tokens) / np.sqrt(square) if square > 0 else 0)).astype(np.float32)


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
