"""Twenty thousand random operations, each compared with a plain model."""

from __future__ import annotations

import gc

import pytest

from tests.storage.machine import RULES, walk
from tests.storage.thresholds import PATHS

STEPS = 20_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking with threads
def test_an_index_does_what_a_plain_model_does():
    gc.collect()
    gc.freeze()  # or each of some hundred collections and forks would go through what all other tests have left
    try:
        steps, hits, paths = walk(STEPS, None)
    finally:
        gc.unfreeze()
    print(f"{steps:,} steps; rules {dict(hits)}; paths {dict(paths)}")
    assert steps >= STEPS
    assert not RULES - set(hits), "rules that were never taken"
    assert not PATHS - set(paths), "paths of the store that were never taken"
