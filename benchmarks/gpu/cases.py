"""The shapes that are raced on a GPU, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.cases import Case, K

PAPER = ((1, 1), (2, 4), (4, 8), (8, 16), (16, 64))
"""The budgets (r_q, r_c) of MetaEmbed's table (arXiv 2509.18095)."""

_TINY = {"documents": 40, "doc_tokens": 4, "dim": 16, "queries": 3, "query_tokens": 3, "candidates": 12}


@dataclass(frozen=True)
class GpuCase(Case):
    """A ``Case`` whose candidates, where it has them, are other ones for each query.

    Attributes:
        budgets: how many tokens of each document are compared, one after another; all of them where it is empty.
        ks: how many documents are returned; ``None``: the scores of all, no top-k.
        codecs: what metaindex keeps documents in; the first one is what int8 is compared with.
        peers: whether other libraries take part.
        replayed: whether calls are also timed as CUDA graphs and on the wall, for shapes that launching dominates.
    """

    budgets: tuple[int, ...] = ()
    ks: tuple[int | None, ...] = (K,)
    codecs: tuple[str, ...] = ("float16", "int8")
    peers: bool = True
    replayed: bool = False
    threads: int = 1

    @property
    def read_tokens(self) -> tuple[int, ...]:
        return self.budgets or (self.doc_tokens,)

    @property
    def ours_only(self) -> bool:
        return not self.peers

    def at(self, r_c: int) -> GpuCase:
        """The case as if documents had ``r_c`` tokens, which is all that a scan at this budget has to read."""
        return replace(self, doc_tokens=r_c, budgets=())

    def nbytes(self, bytes_per_token: int) -> int:
        """Bytes of the documents compared: once for a batch in a scan, once for each query where each has its candidates."""
        return super().nbytes(bytes_per_token) * (1 if self.candidates is None else self.queries)

    def tiny(self) -> GpuCase:
        """So small that plain Python scores it: for the dry run."""
        sizes = {name: min(getattr(self, name), most) for name, most in _TINY.items() if getattr(self, name) is not None}
        budgets = tuple(sorted({max(1, r_c * sizes["doc_tokens"] // self.doc_tokens) for r_c in self.budgets}))
        return replace(self, **sizes, budgets=budgets, ks=tuple(k and 5 for k in self.ks))


def _paper(r_q: int, r_c: int, queries: int) -> GpuCase:
    """A truncated copy of the documents is what a budget reads of nested levels, and the most others can hope for."""
    name = f"me-{r_q}-{r_c}" + (f"-q{queries}" if queries > 1 else "")
    batch = "one query" if queries == 1 else f"{queries} queries"
    return GpuCase(name, f"MetaEmbed's ({r_q},{r_c}), {batch}", 100_000, r_c, 3584, queries=queries, query_tokens=r_q)


def _tok64(name: str, about: str, documents: int = 1_000_000, **rest: object) -> GpuCase:
    return GpuCase(name, about, documents, 64, 128, **rest)  # type: ignore[arg-type]


_INSIDE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # level edges, and budgets in the middle of a level
_RERANK = {"documents": 100_000, "candidates": 1_000, "ks": (None, K), "replayed": True}

# The most telling ones come first: a lease of a GPU may end at any time.
CASES: dict[str, GpuCase] = {
    case.name: case
    for case in (
        GpuCase(
            "corpus-10k",
            "one long query, 10,000 long documents, the shape that others publish",
            10_000,
            300,
            128,
            query_tokens=32,
            ks=(None, K),
            codecs=("float16", "bfloat16", "int8", "float32"),
        ),
        _tok64("tok64-1M", "one query, 1,000,000 documents"),
        _tok64("tok64-100k-q64", "64 queries", 100_000, queries=64, codecs=("float16", "bfloat16", "int8")),
        _tok64("rerank-1", "one query, 1,000 candidates among 100,000 documents", **_RERANK),
        _paper(16, 64, 1),
        _tok64("budget", "one query, the first r_c of 64 tokens that are stored", budgets=_INSIDE, peers=False),
        _paper(16, 64, 64),
        _tok64("rerank-64", "64 queries, 1,000 candidates of its own for each", queries=64, **_RERANK),
        *(_paper(*budget, 1) for budget in PAPER[:-1]),
        *(_paper(*budget, 64) for budget in PAPER[:-1]),
        *(
            _tok64(f"budget-{r_c}", f"one query, the first {r_c} of 64 tokens, others too", budgets=(r_c,), codecs=("float16",))
            for r_c in (8, 1, 32)
        ),
    )
}
