"""What an index answers with: documents, and hits with what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Document:
    """A stored document: its ``tokens`` float32 [t, d] as the codec kept them, and its metadata."""

    id: Any
    tokens: Any
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class StageStats:
    """What one stage of a search did, summed over the batch of queries.

    ``rows``: query-document comparisons. ``bytes``: document bytes read; a scan reads each document once for the whole batch.
    ``scorer``: which scorer ran it, ``why`` it was chosen. ``seconds``: wall-clock time. ``predicted``: the seconds that it
    should have taken, where ``metaindex doctor --calibrate`` has measured this machine.
    """

    stage: str
    rows: int
    bytes: int
    scorer: str
    why: str
    seconds: float
    predicted: float | None = None

    def __str__(self) -> str:
        predicted = "" if self.predicted is None else f"({1e3 * self.predicted:.2f} predicted)  "
        return (
            f"{self.stage:<16} {self.rows:>12,} rows {self.bytes:>16,} bytes {1e3 * self.seconds:>9.2f} ms  "
            f"{predicted}{self.scorer} ({self.why})"
        )


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Hits of a batch of queries; unpacks as ``scores, ids = result``.

    ``scores`` float32 [B, k], falling; ``ids`` [B, k]: int64, or an object array of text. Where a query has fewer than k hits
    the rest is -inf and -1 (``None`` for text). Both are torch tensors where the queries were (text ids stay an object array).
    ``exact``: no stage could have dropped a better document (of ``rerank``: of its candidates). ``plan``: the stages that ran,
    as text that ``Plan.parse`` reads.
    """

    scores: Any
    ids: Any
    exact: bool
    plan: str
    stats: tuple[StageStats, ...] = field(repr=False)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.scores, self.ids))

    def __len__(self) -> int:
        return len(self.scores)

    def to_list(self) -> list[list[dict[str, Any]]]:
        """For every query its hits, best first, as ``{"id": ..., "score": ...}`` in plain Python; missing hits are left out."""
        return [
            [{"id": id_, "score": score} for id_, score in zip(ids, scores) if id_ is not None and id_ != -1]
            for ids, scores in zip(_plain(self.ids), _plain(self.scores))
        ]

    def to_run(self, query_ids: Sequence[Any]) -> dict[str, dict[str, float]]:
        """``{query id: {document id: score}}`` with ids as text, as BEIR, mteb and ranx take it.

        Raises:
            ValueError: not one query id for each query, or one given twice.
        """
        names = [str(query_id) for query_id in query_ids]
        if len(names) != len(self) or len(set(names)) != len(names):
            raise ValueError(f"query_ids: expected {len(self)} different ids, one for each query, got {len(names)}")
        return {name: {str(hit["id"]): hit["score"] for hit in hits} for name, hits in zip(names, self.to_list())}

    def __repr__(self) -> str:
        kind = "exact" if self.exact else "approximate"
        queries, k = self.scores.shape
        seconds = sum(stage.seconds for stage in self.stats)
        nbytes = sum(stage.bytes for stage in self.stats)
        return f"SearchResult({queries} queries x {k} hits, {kind}, {self.plan}, {nbytes:,} bytes, {1e3 * seconds:.2f} ms)"


def _plain(values: Any) -> list[list[Any]]:
    rows: list[list[Any]] = values.tolist()
    return rows
