"""The CUDA scorer as far as no GPU is needed: tile choices, verdicts, what a module without CUDA says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from metaindex._native import core
from metaindex.codecs import CODECS
from metaindex.device.residency import Residency
from metaindex.scoring.cuda import CudaScorer
from tests import builders

_TILE = re.compile(
    r"(\d+) documents x (\d+) tokens by (\d+) columns of (\d+) quer(?:y|ies), (\d+) token blocks, (\d+) passes, (\d+) stages, "
    r"(\d+) bytes shared, (16-byte|single) loads"
)
SM_80_SHARED_BYTES = 163 << 10  # what a block may have, CUDA C++ Programming Guide, compute capability 8.0
ROWS = 128


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dim", [1, 16, 33, 96, 128, 250, 384, 2048, 3584, 5120])
def test_tiles_cover_what_is_asked_and_fit(codec, dim):
    for r_q in (1, 4, 15, 16, 17, 32, 33, 64, 127, 128, 129, 300):
        for r_c in (1, 2, 3, 4, 8, 33, 64, 65, 128, 129, 1030):
            for together in (1, 2, 8, 64, 1000):
                size, text = core.cuda_tile(codec, dim, r_q, r_c, together)
                found = _TILE.fullmatch(text)
                assert found is not None, text
                documents, tokens, columns, queries, blocks, passes, stages, shared = map(int, found.groups()[:8])
                assert documents == size
                assert documents * tokens == ROWS
                assert tokens & (tokens - 1) == 0
                assert (blocks - 1) * tokens < r_c <= blocks * tokens
                assert (passes - 1) * columns < r_q <= passes * columns
                assert 1 <= queries <= together
                assert queries == 1 or (passes == 1 and queries * r_q <= columns)
                assert shared <= SM_80_SHARED_BYTES
                assert stages >= 3
                assert (found[9] == "16-byte") == (dim * CODECS[codec].dtype.itemsize % 16 == 0)


def test_a_query_alone_takes_a_narrow_tile_and_a_batch_a_wide_one():
    assert "16 columns of 1 query" in core.cuda_tile("float16", 128, 16, 64, 1)[1]
    assert "128 columns of 8 queries" in core.cuda_tile("float16", 128, 16, 64, 64)[1]


def test_the_verdict_tells_why():
    asked = builders.queries([np.ones((1, 8), np.float32)], "float16")
    request = builders.request(asked, builders.snapshot([np.ones((1, 8), np.float32)], "float16"), "float16")
    verdict = CudaScorer(Residency("cpu")).supports(request)
    assert not verdict.ok
    assert re.search("no NVIDIA driver|built without CUDA|works on the CPU|torch", verdict.why)


def test_without_cuda_the_error_is_clear():
    if core.cuda_built():
        pytest.skip("the module was compiled with CUDA here")
    with pytest.raises(RuntimeError, match="compiled without CUDA"):
        core.cuda_topk_scratch_bytes(1, 1, 1)
