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
    """Of the means of all clusters of Ward's tree, that of the whole first, then whichever adds most for its own tokens."""
    tree = ward(tokens)
    vectors = np.array([cluster.mean for cluster in tree])
    # The tokens in the order in which they stand in the tree, so that those of each cluster lie side by side.
    arranged = tree[-1].places
    own = np.array([[place in cluster.places for place in arranged] for cluster in tree])
    similarities = dots(vectors, tokens[arranged])
    covered = similarities[-1].copy()
    chosen = [len(tree) - 1]
    while len(chosen) < min(n, len(tokens)):
        raised = np.where(own, np.maximum(similarities - covered, np.float32(0)), np.float32(0))
        gains = in_order(raised.astype(np.float64).T)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        covered = np.where(own[chosen[-1]], np.maximum(covered, similarities[chosen[-1]]), covered)
    return vectors[chosen], [tree[each].places[0] if len(tree[each].places) == 1 else -1 for each in chosen]


def dots(vectors: NDArray[np.float32], tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products [n, t], each in sixteen sums by turns, which are added up in pairs."""
    turns = -(-vectors.shape[1] // 16)
    terms = np.zeros((len(vectors), len(tokens), 16 * turns), np.float32)
    terms[..., : vectors.shape[1]] = vectors[:, None] * tokens[None]
    sums = np.zeros((len(vectors), len(tokens), 16), np.float32)
    for turn in range(turns):
        sums += terms[..., 16 * turn : 16 * turn + 16]
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    return sums[..., 0]


@dataclass(frozen=True, eq=False)
class Cluster:
    """``places`` of tokens, those of the part with the earliest first; the sum [d] of them, and that of their lengths; the
    ``mean`` [d] of them, as long as they are on average."""

    places: list[int]
    total: NDArray[np.float64]
    lengths: np.float64
    mean: NDArray[np.float32]

    @classmethod
    def of_token(cls, place: int, token: NDArray[np.float32]) -> Cluster:
        exact = token.astype(np.float64)
        return cls([place], exact, length(exact), token)

    def joined(self, other: Cluster) -> Cluster:
        places, total, lengths = self.places + other.places, self.total + other.total, self.lengths + other.lengths
        whole = length(total)
        scale = lengths / len(places) / whole if whole > 0 else 0.0
        return Cluster(places, total, lengths, (total * scale).astype(np.float32))


def length(numbers: NDArray[np.float64]) -> np.float64:
    """The length of a vector [d], its squares added up in four sums by turns."""
    squares = np.zeros((-(-len(numbers) // 4), 4))
    squares.ravel()[: len(numbers)] = numbers * numbers
    sums = in_order(squares)
    return np.sqrt((sums[0] + sums[2]) + (sums[1] + sums[3]))


def ward(tokens: NDArray[np.float32]) -> list[Cluster]:
    """All clusters by chains of nearest neighbours, tokens first and the whole last: those of merging the two nearest ones each
    time, but for ties."""
    squares = np.diag(products(tokens, tokens))
    apart = squares[None, :] + squares[:, None] - 2 * products(tokens, tokens)
    scale = np.float32(2.0 ** -max(-100, int(np.frexp(squares.max())[1])))
    apart = np.where(apart > 0, apart, np.float32(0)) * scale
    np.fill_diagonal(apart, np.inf)
    of_slot = [Cluster.of_token(place, token) for place, token in enumerate(tokens)]
    found = list(of_slot)
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
        of_slot[kept] = of_slot[kept].joined(of_slot[left])
        found.append(of_slot[kept])
    return found


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
