"""Every scorer with every codec it has arithmetic for, as test parameters, and what the reference says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from metaindex import _native
from metaindex.codecs import CODECS
from metaindex.device.devices import resolved
from metaindex.device.residency import Residency
from metaindex.scoring.cpu import CpuScorer
from metaindex.scoring.cuda import CudaOperations, CudaScorer
from metaindex.scoring.reference import ReferenceScorer
from metaindex.scoring.registry import Scorer
from metaindex.scoring.request import ScoreRequest
from metaindex.scoring.triton import TritonScorer
from tests.kernels.emulated import emulated_scorer
from tests.tolerances import score_tolerance

_DEVICE = torch.device(resolved("auto"))  # "cpu" where there is no GPU: kernels are interpreted or emulated then
_CUDA = (
    (emulated_scorer("80"), emulated_scorer("90a", "sm90"))
    if _DEVICE.type == "cpu"
    else tuple(CudaScorer(Residency(str(_DEVICE)), CudaOperations(path)) for path in (None, "portable", "sm90"))
)
_EVERY: tuple[Scorer, ...] = (
    ReferenceScorer(),
    CpuScorer(),
    *(CpuScorer(isa) for isa in _native.core.features()),
    TritonScorer(Residency(str(_DEVICE))),
    *_CUDA,
)
SCORERS = {scorer.name: scorer for scorer in _EVERY}
SPECIAL = {
    "cpu:avx512vnni": {"int8"},
    "cpu:avx512bf16": {"bfloat16"},
    "cpu:amx": {"int8", "bfloat16", "float16"},
    "cuda:sm90": {"int8", "bfloat16", "float16"},
}
PAIRS = [(scorer, codec) for scorer in SCORERS for codec in CODECS if codec in SPECIAL.get(scorer, CODECS)]

# Scorers whose kernels are interpreted or emulated, at some milliseconds per program and with no threads to tell apart.
EMULATED = {scorer.name for scorer in _CUDA} if _DEVICE.type == "cpu" else set()
INTERPRETED = {"triton", *EMULATED} if _DEVICE.type == "cpu" else set()

ON_GPU = [name for name in SCORERS if name.startswith(("triton", "cuda"))] if _DEVICE.type == "cuda" else []

every_scorer = pytest.mark.parametrize(
    ("scorer", "codec"), [pytest.param(*pair, marks=[pytest.mark.gpu] if pair[0] in ON_GPU else []) for pair in PAIRS]
)


def answer(name: str, request: ScoreRequest) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and, where the request has a k, rows, written into arrays that were poisoned before."""
    verdict = SCORERS[name].supports(request)
    if not verdict.ok:
        pytest.skip(f"{name}: {verdict.why}")
    scores = np.full(request.output_shape, np.nan, np.float32)
    rows = np.full(request.output_shape, -77, np.int64)
    SCORERS[name].score(request, scores, None if request.k is None else rows)
    return scores, rows


def assert_like_reference(name: str, request: ScoreRequest) -> NDArray[np.float32]:
    """The scores, which agree with the reference's on decoded values."""
    scores, rows = answer(name, request)
    expected, expected_rows = answer("reference", request)
    np.testing.assert_allclose(scores, expected, **score_tolerance(expected[np.isfinite(expected)]))
    if request.k is not None:
        assert_ranked_like(rows, expected_rows, expected)
    return scores


def assert_ranked_like(rows: NDArray[np.int64], expected_rows: NDArray[np.int64], expected: NDArray[np.float32]) -> None:
    """A rank may differ only where the scores differ by less than the tolerance."""
    atol = score_tolerance(expected[np.isfinite(expected)])["atol"]
    for b, k in zip(*np.nonzero(rows != expected_rows), strict=True):
        near = np.abs(expected[b] - expected[b, k]) < 2 * atol
        near[-1] = True  # what the last place ties with may have been cut off
        assert rows[b, k] in expected_rows[b, near] or near[k:].all(), f"query {b}, place {k}"
