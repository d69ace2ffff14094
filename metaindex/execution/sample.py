"""A sample of documents scored twice: by the scorer that searches would use, and by the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metaindex.errors import CorruptIndexError
from metaindex.execution import executor
from metaindex.execution.windows import tokens_at
from metaindex.scoring.registry import Registry
from metaindex.scoring.request import Queries
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.verify import Damage, Verification
from metaindex.types import Budget

# float32 sums of up to some thousand terms lose a few units of 2**-24 of the largest partial sum.
TOLERANCE = 1e-5
_SEED = 2509
_QUERIES = 2
_QUERY_TOKENS = 16


def compared(
    found: Verification, scorers: Registry, schema: Schema, snapshot: Snapshot, sample: int, num_threads: int
) -> Verification:
    """``found``, and the scores of ``sample`` documents at full budget: a difference beyond ``TOLERANCE`` is damage.

    The queries are tokens of documents of the sample.

    Raises:
        CapacityError: a document does not fit into the memory of the snapshot.
    """
    rng = np.random.default_rng(_SEED)
    standing = snapshot.standing
    rows = np.sort(rng.choice(standing, min(sample, len(standing)), replace=False))
    if not len(rows) or not found.ok:  # what is damaged may score anything
        return found
    name = "scorer"
    try:
        asked = []
        for row in rng.choice(rows, _QUERIES):
            tokens = np.zeros((_QUERY_TOKENS, schema.dim or 1), np.float32)
            document = tokens_at(snapshot, int(row))[:_QUERY_TOKENS]
            tokens[: len(document)] = document
            asked.append(tokens)
        queries = Queries.of(np.stack(asked), np.full(_QUERIES, _QUERY_TOKENS, np.int32), schema)
        search = executor.Search(scorers, schema, snapshot, queries, num_threads=num_threads)
        budget = Budget(_QUERY_TOKENS, snapshot.levels.tokens)
        candidates = rows[None, :]
        scorer, _ = scorers.choose(search.request(budget, candidates, None))
        name = f"scorer {scorer.name!r}"
        scores = executor.gather(search, budget, candidates)
        expected = executor.gather(replace(search, scorer="reference"), budget, candidates)
    except (CorruptIndexError, OSError) as error:
        return replace(found, ok=False, damage=(*found.damage, Damage(name, str(error), len(rows))))
    allowed = TOLERANCE * np.maximum(1.0, np.abs(expected).max(initial=0)) + TOLERANCE * np.abs(expected)
    wrong = ~(np.abs(scores - expected) <= allowed)
    found = replace(found, sampled=len(rows))
    if wrong.any():
        what = f"scores differ from the reference by up to {np.abs(scores - expected)[wrong].max():.3g}"
        found = replace(found, ok=False, damage=(*found.damage, Damage(name, what, int(wrong.any(axis=0).sum()))))
    return found
