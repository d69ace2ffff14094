"""The cases, as data: shapes that real searches have."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Every contestant returns this many documents for each query, and the time it takes to pick them counts.
K = 100


@dataclass(frozen=True)
class Case:
    """``queries`` queries of ``query_tokens`` against ``documents`` of ``doc_tokens``, or against ``candidates`` of them."""

    name: str
    about: str
    documents: int
    doc_tokens: int
    dim: int
    queries: int = 1
    query_tokens: int = 16
    candidates: int | None = None
    threads: int = 2
    k: int = K

    @property
    def scored(self) -> int:
        """How many documents each query is compared with."""
        return self.documents if self.candidates is None else self.candidates

    @property
    def operations(self) -> int:
        """Multiplications and additions of all query tokens with all tokens of the scored documents."""
        return 2 * self.queries * self.query_tokens * self.scored * self.doc_tokens * self.dim

    def nbytes(self, bytes_per_token: int) -> int:
        """Bytes of the scored documents, which a scan reads once however many queries there are."""
        return self.scored * self.doc_tokens * bytes_per_token

    def quick(self) -> Case:
        """The case with a tenth of its documents, 1,000 or more: shows that everything runs, measures nothing to keep."""
        documents = max(self.documents // 10, 1000)
        return replace(self, documents=documents, queries=min(self.queries, 8))


CASES = {
    case.name: case
    for case in (
        Case("W1", "one query, 20,000 documents of 64 tokens, d = 128", 20_000, 64, 128),
        Case("W1x32", "32 queries in one batch against W1's documents", 20_000, 64, 128, queries=32),
        Case("W2", "one query, 2,000 documents of 64 tokens, d = 3584", 2_000, 64, 3584),
        Case(
            "W3", "one query, 1,000 candidates among W1's documents, one thread", 20_000, 64, 128, candidates=1_000, threads=1
        ),
        Case("M1", "(1,1): one token against 1,000,000 documents of one token, d = 128", 1_000_000, 1, 128, query_tokens=1),
    )
}
