"""A coarse stage beside any order of writes: nothing that was removed or filtered out is found, and no answer is too short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.coarse import kinds, upkeep

pytest.importorskip("faiss", reason="faiss is not installed")

DIM, TOKENS = 4, 3
KINDS = ("Flat", "IVF4,Flat", "HNSW4", "fde(repetitions=2,bits=1,dim=8),Flat")
writes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "upsert", "compact", "build"]), st.integers(1, 25)), min_size=1, max_size=8
)


@pytest.fixture(autouse=True, scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "FEW", 8)
        patch.setattr(kinds, "POINTS_PER_CENTROID", 2)
        yield


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(writes=writes, seed=st.integers(0, 2**32 - 1), keep=st.integers(3, 40), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_deletes_and_filters_never_resurrect_or_starve(kind, writes, seed, keep, share):
    rng = np.random.default_rng(seed)

    def documents(count: int) -> np.ndarray:
        return rng.integers(-3, 4, (count, TOKENS, DIM)).astype(np.float32)

    index = MetaIndex(codec="float32", coarse=kind, num_threads=1)
    index.add(documents(20))
    standing, following = set(range(20)), 20
    for write, count in writes:
        some = rng.permutation(sorted(standing))[:count].tolist()
        if write == "add":
            index.add(documents(count), ids=range(following, following + count))
            standing |= set(range(following, following + count))
            following += count
        elif write == "remove":
            index.remove(some)
            standing -= set(some)
        elif write == "upsert" and some:
            index.upsert(documents(len(some)), some)
        elif write == "compact":
            index.compact()
        elif write == "build" and len(standing) >= 8:
            index.build_coarse()
    queries = documents(3)[:, :2]
    allowed = None if share == 1.0 else [one for one in sorted(standing) if rng.random() < share]
    among = standing if allowed is None else set(allowed)
    k = min(3, keep)
    found = index.search(queries, k, plan=f"coarse>{keep} (*,*)", filter=allowed)
    for ids, scores in zip(found.ids.tolist(), found.scores.tolist()):
        hits = [one for one in ids if one >= 0]
        assert len(hits) == len(set(hits)) == min(k, len(among))
        assert set(hits) <= among
        assert scores == sorted(scores, reverse=True)
    if kind == "Flat":  # candidates by the first token, which a scan of level 0 finds too, but for ties
        scan = index.search(queries, k, plan=f"(*,1)>{keep} (*,*)", filter=allowed)
        assert (found.exact, found.stats == ()) == (scan.exact, scan.stats == ())
    if keep >= len(among):
        exact = index.search(queries, k, plan="(*,*)", filter=allowed)
        np.testing.assert_array_equal(found.ids, exact.ids)
        assert found.exact
