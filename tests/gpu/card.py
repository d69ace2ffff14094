"""The GPU that the tests of this folder run on. Where there is none, every module that imports this is skipped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metaindex.device.devices import why_no_gpu

if why := why_no_gpu():
    pytest.skip(f"tests/gpu runs kernels on a GPU: {why}", allow_module_level=True)

import torch

from metaindex.cli.doctor import smallest_request
from metaindex.codecs import CODECS
from metaindex.device.residency import Residency
from metaindex.scoring.cuda import CudaOperations, CudaScorer
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.request import ScoreRequest
from metaindex.scoring.triton import TritonScorer

DEVICE = torch.device("cuda:0")
SCORERS: dict[str, Callable[[Residency], DeviceScorer]] = {
    "cuda": CudaScorer,
    "cuda:portable": lambda residency: CudaScorer(residency, CudaOperations("portable")),
    "cuda:sm90": lambda residency: CudaScorer(residency, CudaOperations("sm90")),
    "triton": TritonScorer,
}
BACKENDS = ("cuda", "triton")
"""Those of them that an index has by these names."""

every_scorer = pytest.mark.parametrize("backend", SCORERS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_codec = pytest.mark.parametrize("kind", CODECS)


def scorer(backend: str, request: ScoreRequest | None = None) -> DeviceScorer:
    """A scorer, which can serve ``request``; the test is skipped where its verdict is no."""
    made = SCORERS[backend](Residency(str(DEVICE)))
    verdict = made.supports(request or smallest_request(CODECS["float16"]))
    if not verdict.ok:
        pytest.skip(f"{backend}: {verdict.why}")
    return made


def needs(nbytes: int) -> None:
    """Skips the test where the card has not so many bytes free."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(DEVICE)[0]
    if free < nbytes:
        pytest.skip(f"takes {nbytes >> 20:,} MiB of device memory, and {free >> 20:,} MiB are free")
