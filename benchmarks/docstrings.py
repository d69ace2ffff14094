"""Real text for the programs here: the docstrings of Python's standard library, as vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaindex.bench.docstrings import collect


def docstring_vectors(quick: bool) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The token vectors of bodies, the documents, and of their summaries, the queries; ``quick``: of some only."""
    from metaindex.encoders.minilm import MiniLM

    model, entries = MiniLM(), collect()[: 120 if quick else None]
    return model.encode_document([entry.body for entry in entries]), model.encode_query([entry.summary for entry in entries])
