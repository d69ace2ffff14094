"""Real text for the programs here: the docstrings of Python's standard library, as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import MetaIndex
from metaindex.bench.docstrings import collect
from metaindex.evaluation import ndcg_at_k

K = 10


def docstring_vectors(quick: bool) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The token vectors of bodies, the documents, and of their summaries, the queries; ``quick``: of some only."""
    from metaindex.encoders.minilm import MiniLM

    model, entries = MiniLM(), collect()[: 120 if quick else None]
    return model.encode_document([entry.body for entry in entries]), model.encode_query([entry.summary for entry in entries])


def ndcg(queries: Any, documents: Any, codec: str, budget: Any = None) -> NDArray[np.float64]:
    """nDCG@10 of each query [B], whose right document has the same place; vectors are a list of [t_i, d] or one array."""
    index = MetaIndex(codec=codec, nested=True)
    index.add(documents)
    ids = np.asarray(index.search(queries, K, budget=budget).ids)
    return ndcg_at_k(ids.tolist(), [{place: 1.0} for place in range(len(queries))], K)


def standard_error(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Of the mean."""
    return float(np.std(values) / len(values) ** 0.5)
