"""Memory: what vectors and documents take, and what an add from an iterator holds."""

import tracemalloc

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.codecs import CODECS


def _held(build):
    """What ``build`` returns, the bytes it left behind, and the most it held at any time. numpy reports its arrays here."""
    tracemalloc.start()
    try:
        made = build()
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return made, left, peak


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_vectors_take_their_tokens_bytes_plus_three_percent(codec):
    vectors = np.random.default_rng(0).standard_normal((2000, 16, 64), dtype=np.float32)

    def build():
        index = MetaIndex(codec=codec, num_threads=1)
        index.add(vectors)
        return index

    index, left, _ = _held(build)
    tokens = vectors.shape[0] * vectors.shape[1] * CODECS[codec].bytes_per_token(64)
    assert sum(level["ram"] for level in index.memory()["levels"]) <= 1.03 * tokens
    assert left <= 1.03 * tokens + 64 * len(vectors) + (1 << 20)


def test_a_million_documents_from_an_iterator_hold_two_batches_at_most():
    """Beyond the index itself, in batches large enough that merges of small segments (8 MiB at a time) are the smaller part."""
    batch = np.random.default_rng(0).standard_normal((20_000, 16, 16), dtype=np.float32)
    count = 50

    def build():
        index = MetaIndex(codec="int8", num_threads=1)
        index.add(batch.copy() for _ in range(count))
        return index

    index, left, peak = _held(build)
    assert len(index) == count * len(batch) == 1_000_000
    assert peak - left <= 2 * batch.nbytes
    assert sum(level["ram"] for level in index.memory()["levels"]) == 1_000_000 * 16 * 20
