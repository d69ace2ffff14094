"""maxsim-cpu: its one call for documents of equal length, once for each query of a batch, which it has no call for."""

from __future__ import annotations

import maxsim_cpu
import numpy as np

from benchmarks.contestant import Peer, Search, best
from benchmarks.problem import Problem


def _prepare(problem: Problem) -> Search:
    documents, queries = problem.scored, problem.queries
    return lambda: best(problem, np.stack([maxsim_cpu.maxsim_scores(query, documents) for query in queries]))


PEERS = (
    Peer(
        "maxsim-cpu float32",
        "maxsim-cpu",
        "float32",
        "maxsim_scores, argpartition; candidates lie together beforehand",
        _prepare,
    ),
)
