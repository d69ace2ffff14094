"""The law: MaxSim in plain numpy, in float64, one document at a time. Every other scorer is held to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts
from metaindex.scoring.ranking import top
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest
from metaindex.storage.segment import Segment


def similarities(query: NDArray, document: NDArray) -> NDArray[np.float64]:
    """``<query_i, document_j>`` [r, t] for a query [r, d] and a document [t, d]."""
    return np.asarray(query.astype(np.float64) @ document.astype(np.float64).T)


def maxsim(query: NDArray, document: NDArray) -> float:
    """``sum_i max_j <query_i, document_j>`` for a query [r, d] and a document [t, d], t >= 1."""
    return float(similarities(query, document).max(axis=1).sum())


def banded_similarities(queries: Sequence[tuple[int, NDArray]], document: NDArray) -> NDArray[np.float64]:
    """As ``similarities``; ``queries``: the query [r, d] decoded from the codec of each band, and the band's first token."""
    stops = [*(start for start, _ in queries[1:]), len(document)]
    bands = [similarities(query, document[start:stop]) for (start, query), stop in zip(queries, stops)]
    return np.concatenate(bands, axis=1)


def document_tokens(segment: Segment, row: int, tokens: int) -> NDArray[np.float32]:
    """The first ``tokens`` decoded tokens [t, d] of one document, or all where it has fewer."""
    tokens = min(tokens, int(segment.lengths[row]))
    parts = []
    for level in segment.levels:
        if level.start < tokens:
            kept = min(level.width, tokens - level.start)
            codes, scales = level.parts
            parts.append(level.codec.decode(Parts(codes[row, :kept], None if scales is None else scales[row, :kept])))
    return np.concatenate(parts)


class ReferenceScorer:
    """Serves everything, slowly."""

    name = "reference"

    def supports(self, request: ScoreRequest) -> Verdict:
        return Verdict(True, "numpy, float64")

    def score(self, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
        snapshot, k = request.snapshot, request.k
        queries = [(band.start, band.codec.decode(band.queries.parts)) for band in request.bands]
        scores.fill(-np.inf)
        for b, length in enumerate(request.queries.lengths):
            query = [(start, decoded[b, : min(int(length), request.budget.r_q)]) for start, decoded in queries]
            if request.candidates is None:
                asked = np.arange(snapshot.rows)
            else:
                asked = request.candidates[b if len(request.candidates) > 1 else 0]
            allowed = asked >= 0
            if request.allow is not None:
                allowed[allowed] = request.allow[asked[allowed]]
            found = np.full(len(asked), -np.inf, dtype=np.float32)
            for place in np.flatnonzero(allowed):
                at = int(np.searchsorted(snapshot.first_rows, asked[place], side="right")) - 1
                row = int(asked[place] - snapshot.first_rows[at])
                document = document_tokens(snapshot.segments[at], row, request.budget.r_c)
                found[place] = banded_similarities(query, document).max(axis=1).sum()
            if k is None:
                scores[b] = found
                continue
            assert rows is not None
            rows[b] = -1
            best = np.flatnonzero(allowed)
            best = best[top(found[best], asked[best], snapshot.sequence_at(asked[best]), k)]
            scores[b, : len(best)], rows[b, : len(best)] = found[best], asked[best]
