"""The order of an answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top(scores: NDArray[np.float32], rows: NDArray[np.int64], sequence: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Where in ``rows`` [n] the k best distinct rows are: higher scores first, equal ones by ``sequence`` [n]."""
    order = np.lexsort((sequence, -scores))
    _, first = np.unique(rows[order], return_index=True)
    return order[np.sort(first)][:k]
