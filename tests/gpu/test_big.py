"""Levels and scores of more than 2**31 elements on a GPU, against torch in float64 on the same device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metaindex.codecs import CODECS
from metaindex.scoring.device import Step
from tests.gpu.card import DEVICE, every_backend, every_codec, needs, scorer
from tests.kernels.big import Big, encoded
from tests.tolerances import score_tolerance

pytestmark = pytest.mark.gpu
ELEMENTS = 2**31
_SLACK = 6 << 30  # for scores, references and what torch keeps


def _assert_near(found: Tensor, expected: Tensor) -> None:
    tolerance = score_tolerance(np.array([float(expected.abs().max())]))
    assert torch.allclose(found.double(), expected, **tolerance)


@every_backend
@every_codec
def test_a_level_of_more_than_2_31_elements(backend, kind):
    made, tokens, dim = scorer(backend), 64, 128
    rows = ELEMENTS // (tokens * dim) + 5001
    needs(rows * tokens * (dim * CODECS[kind].dtype.itemsize + 4) + _SLACK)
    queries = torch.randn((3, 16, dim), generator=torch.Generator(DEVICE).manual_seed(4), device=DEVICE)
    planted = (rows - 1, rows - 4999, rows // 2)
    big = Big.random(kind, rows, tokens, dim, DEVICE, {row: 2 * queries[b] for b, row in enumerate(planted)})
    assert big.codes.numel() > ELEMENTS
    asked = encoded(kind, queries)
    for r_c in (64, 24):
        step = Step(made.operations, big.table(r_c), asked, r_c)
        scores = step.all_scores()
        for part, expected in big.expected(asked, r_c):
            _assert_near(scores[:, part], expected)
        best, found = step.best(5)
        assert found[:, 0].tolist() == list(planted)
        _assert_near(best, scores.gather(1, found).double())
        candidates = torch.tensor([[row, 0, rows - 1, rows - 2] for row in planted], device=DEVICE)
        gathered = Step(made.operations, big.table(r_c), asked, r_c, candidates).all_scores()
        _assert_near(gathered, scores.gather(1, candidates).double())


@every_backend
def test_more_than_2_31_scores(backend):
    made, rows, batch = scorer(backend), 1_000_000, 2200
    assert rows * batch > ELEMENTS
    needs(4 * rows * batch + _SLACK)
    big = Big.random("int8", rows, 1, 16, DEVICE)
    asked = encoded("int8", torch.randn((batch, 1, 16), device=DEVICE))
    scores = Step(made.operations, big.table(1), asked, 1).all_scores()
    for part, expected in big.expected(asked, 1):
        _assert_near(scores[:, part], expected)


@every_backend
def test_a_search_takes_256_mib_at_most(backend):
    """Besides levels and answer: a batch against a million documents has no [B, N] scores."""
    made, rows, batch, k = scorer(backend), 1_000_000, 256, 100
    needs(_SLACK)
    big = Big.random("float16", rows, 1, 32, DEVICE)
    asked = encoded("float16", torch.randn((batch, 4, 32), device=DEVICE))
    step = Step(made.operations, big.table(1), asked, 1)
    step.best(k)  # compiles what has to be
    torch.cuda.synchronize(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    torch.cuda.reset_peak_memory_stats(DEVICE)
    _, found = step.best(k)
    assert torch.cuda.max_memory_allocated(DEVICE) - before <= (256 << 20) + 12 * batch * k
    expected = torch.cat([scores for _, scores in big.expected(asked, 1)], dim=1).topk(k).values
    _assert_near(step.all_scores().gather(1, found), expected)
