"""metaindex: its public ``search`` and ``rerank``, with the instruction set it chooses by itself and with others pinned, so
that a machine that lacks the best one finds its own row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.cases import Case
from benchmarks.contestant import Search
from benchmarks.problem import Answer, Problem
from metaindex import MetaIndex
from metaindex._native import core
from metaindex.scoring.cpu import CpuScorer

_PINNED = {
    "int8": ("amx", "avx512vnni", "avx512", "avx2"),
    "bfloat16": ("amx", "avx512bf16", "avx512", "avx2"),
    "float16": ("avx512", "avx2"),
    "float32": (),
}


@dataclass(frozen=True)
class Ours:
    """``isa``: the pinned instruction set; ``None`` lets metaindex choose."""

    codec: str
    isa: str | None
    package: str = "metaindex"
    ours: bool = True
    our_encoding: bool = True

    @property
    def name(self) -> str:
        return f"metaindex {self.codec}" + (f" on {self.isa}" if self.isa else "")

    @property
    def how(self) -> str:
        return "MetaIndex.search, or rerank of candidates" + (f", scorer cpu:{self.isa}" if self.isa else "")

    def serves(self, case: Case) -> bool:
        return self.isa is None or core.serves(self.isa, self.codec)[0]

    def prepare(self, problem: Problem) -> Search:
        index, case = _index(problem, self.codec), problem.case
        scorer = "auto" if self.isa is None else f"cpu:{self.isa}"
        if problem.candidates is None:
            return lambda: Answer(*index.search(problem.queries, case.k, scorer=scorer))
        return lambda: Answer(*index.rerank(problem.queries, problem.candidates, case.k, scorer=scorer))


@cache
def _index(problem: Problem, codec: str) -> MetaIndex:
    """One index per codec for all instruction sets; ids are the documents' places."""
    index = MetaIndex(codec=codec, num_threads=problem.case.threads)
    index.add(problem.documents, ids=np.arange(len(problem.documents)))
    for isa in _PINNED[codec]:
        index._scorers.register(CpuScorer(isa))
    return index


PEERS = tuple(Ours(codec, isa) for codec, pinned in _PINNED.items() for isa in (None, *pinned))
