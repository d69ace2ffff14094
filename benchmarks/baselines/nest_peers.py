"""Pages cut down to some vectors by others' means: facility location in numpy, pools of Ward's clusters in scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def facility_numpy(tokens: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The mean and the n - 1 tokens that greedily raise coverage most, every gain worked out anew in each step: what
    ``metaindex.nest`` was before it was compiled."""
    mean = unit(tokens.mean(axis=0, dtype=np.float64)).astype(np.float32)
    similarity, covered = tokens @ tokens.T, tokens @ mean
    chosen: list[int] = []
    free = np.ones(len(tokens), dtype=bool)
    for _ in range(min(n - 1, len(tokens))):
        gains = np.maximum(similarity - covered, 0).sum(axis=1, dtype=np.float64)
        chosen.append(int(np.argmax(np.where(free, gains, -1.0))))
        free[chosen[-1]] = False
        np.maximum(covered, similarity[chosen[-1]], out=covered)
    return np.concatenate([mean[None], tokens[chosen]])


def ward_tree(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    """scipy's tree of Ward's clusters of at least two tokens."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    return linkage(pdist(tokens), "ward")


def pooled(tokens: NDArray[np.float32], n: int, tree: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """The normalised means of n clusters of a tree, by default Ward's. Not nested: another n means other clusters."""
    from scipy.cluster.hierarchy import fcluster

    if len(tokens) <= n:
        return tokens
    labels = fcluster(ward_tree(tokens) if tree is None else tree, n, criterion="maxclust")
    sums = np.zeros((labels.max(), tokens.shape[1]))
    np.add.at(sums, labels - 1, tokens)
    return unit(sums).astype(np.float32)


def pooled_by_dissimilarities(tokens: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The same of clusters of the rows of 1 - cosine, which is what colpali-engine's hierarchical token pooling does."""
    return pooled(tokens, n, ward_tree(1 - tokens @ tokens.T)) if len(tokens) > n else tokens


def unit(vectors: NDArray) -> NDArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
