"""Levels and scores of more than 2**31 elements on a GPU, against torch in float64 on the same device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from metaindex.codecs import CODECS, codec
from metaindex.device.encode import encode
from metaindex.device.operations import DeviceQueries
from metaindex.device.residency import Residency
from metaindex.scoring.device import Step
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Levels
from tests.gpu.card import DEVICE, every_backend, every_codec, needs, scorer
from tests.tolerances import score_tolerance

pytestmark = pytest.mark.gpu
ELEMENTS = 2**31
_SLACK = 6 << 30  # for scores, references and what torch keeps
_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Big:
    """One level on the device, codes [N, T, d] and scales, in a snapshot."""

    kind: str
    codes: Tensor
    scales: Tensor | None
    snapshot: Snapshot
    residency: Residency

    @classmethod
    def random(cls, kind: str, rows: int, tokens: int, dim: int, planted: dict[int, Tensor]) -> Big:
        """``planted``: tokens [t, d] that the documents at those rows begin with, as the codec has them."""
        generator = torch.Generator(DEVICE).manual_seed(3)
        codes = torch.empty((rows, tokens, dim), dtype=getattr(torch, kind), device=DEVICE)
        scales = torch.empty((rows, tokens), device=DEVICE) if CODECS[kind].scaled else None
        for start in range(0, rows, _CHUNK):
            part = slice(start, min(rows, start + _CHUNK))
            values = torch.randn(codes[part].shape, generator=generator, device=DEVICE)
            for row, first in planted.items():
                if part.start <= row < part.stop:
                    values[row - start, : len(first)] = first
            encode(kind, values, codes[part], None if scales is None else scales[part])
        residency = Residency(str(DEVICE))
        nbytes = codes.nbytes + (0 if scales is None else scales.nbytes)
        level = Level(0, tokens, rows, nbytes, _never_read)
        residency.adopt(level, codes, scales)
        places = np.arange(rows)
        segment = Segment("big", rows, (level,), np.full(rows, tokens, np.int32), places, places)
        return cls(kind, codes, scales, Snapshot(1, Levels((tokens,)), (segment,), np.empty(0, np.int64)), residency)

    def table(self, r_c: int):
        return self.residency.table(self.snapshot, codec(self.kind), self.codes.shape[2], r_c)

    def expected(self, queries: DeviceQueries, r_c: int) -> Iterator[tuple[slice, Tensor]]:
        """Scores [B, rows] in float64, some rows at a time."""
        asked = _decoded(queries.codes, queries.scales)
        batch, tokens, dim = asked.shape
        for start in range(0, len(self.codes), _CHUNK):
            part = slice(start, min(len(self.codes), start + _CHUNK))
            decoded = _decoded(self.codes[part, :r_c], None if self.scales is None else self.scales[part, :r_c])
            products = asked.reshape(-1, dim) @ decoded.reshape(-1, dim).T
            best = products.view(batch, tokens, -1, r_c).amax(dim=3)
            yield part, best.sum(dim=1)


def _never_read():
    raise AssertionError("these documents never were on the host")


def _decoded(codes: Tensor, scales: Tensor | None) -> Tensor:
    return codes.double() if scales is None else codes.double() * scales.double()[..., None]


def _encoded(kind: str, tokens: Tensor) -> DeviceQueries:
    codes = torch.empty(tokens.shape, dtype=getattr(torch, kind), device=DEVICE)
    scales = torch.empty(tokens.shape[:-1], device=DEVICE) if CODECS[kind].scaled else None
    encode(kind, tokens, codes, scales)
    return DeviceQueries(codes, scales, torch.full((len(tokens),), tokens.shape[1], dtype=torch.int32, device=DEVICE))


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
    big = Big.random(kind, rows, tokens, dim, {row: 2 * queries[b] for b, row in enumerate(planted)})
    assert big.codes.numel() > ELEMENTS
    asked = _encoded(kind, queries)
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
    big = Big.random("int8", rows, 1, 16, {})
    asked = _encoded("int8", torch.randn((batch, 1, 16), device=DEVICE))
    scores = Step(made.operations, big.table(1), asked, 1).all_scores()
    for part, expected in big.expected(asked, 1):
        _assert_near(scores[:, part], expected)


@every_backend
def test_a_search_takes_256_mib_at_most(backend):
    """Besides levels and answer: a batch against a million documents has no [B, N] scores."""
    made, rows, batch, k = scorer(backend), 1_000_000, 256, 100
    needs(_SLACK)
    big = Big.random("float16", rows, 1, 32, {})
    asked = _encoded("float16", torch.randn((batch, 4, 32), device=DEVICE))
    step = Step(made.operations, big.table(1), asked, 1)
    step.best(k)  # compiles what has to be
    torch.cuda.synchronize(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    torch.cuda.reset_peak_memory_stats(DEVICE)
    _, found = step.best(k)
    assert torch.cuda.max_memory_allocated(DEVICE) - before <= (256 << 20) + 12 * batch * k
    expected = torch.cat([scores for _, scores in big.expected(asked, 1)], dim=1).topk(k).values
    _assert_near(step.all_scores().gather(1, found), expected)
