"""Documents that are made where they lie: levels too large for the host's memory, and what their scores are in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metaindex.codecs import CODECS, Parts, codec
from metaindex.device.encode import encode
from metaindex.device.operations import DeviceQueries
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Levels

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
    def random(
        cls, kind: str, rows: int, tokens: int, dim: int, device: torch.device, planted: Mapping[int, Tensor] | None = None
    ) -> Big:
        """``planted``: tokens [t, d] that the documents at those rows begin with, before they are encoded."""
        generator = torch.Generator(device).manual_seed(3)
        codes = torch.empty((rows, tokens, dim), dtype=getattr(torch, kind), device=device)
        scales = torch.empty((rows, tokens), device=device) if CODECS[kind].scaled else None
        for start in range(0, rows, _CHUNK):
            part = slice(start, min(rows, start + _CHUNK))
            values = torch.randn(codes[part].shape, generator=generator, device=device)
            for row, first in (planted or {}).items():
                if part.start <= row < part.stop:
                    values[row - start, : len(first)] = first
            encode(kind, values, codes[part], None if scales is None else scales[part])
        residency = Residency(str(device))
        nbytes = codes.nbytes + (0 if scales is None else scales.nbytes)
        level = Level(0, tokens, rows, nbytes, CODECS[kind], _never_read)
        residency.adopt(level, codes, scales)
        places = np.arange(rows)
        segment = Segment("big", rows, (level,), np.full(rows, tokens, np.int32), places, places)
        return cls(kind, codes, scales, Snapshot(1, Levels((tokens,)), (segment,), np.empty(0, np.int64)), residency)

    def table(self, r_c: int) -> DeviceTable:
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


def encoded(kind: str, tokens: Tensor) -> DeviceQueries:
    """Queries [B, R, d] as a codec has them, where they lie."""
    codes = torch.empty(tokens.shape, dtype=getattr(torch, kind), device=tokens.device)
    scales = torch.empty(tokens.shape[:-1], device=tokens.device) if CODECS[kind].scaled else None
    encode(kind, tokens, codes, scales)
    return DeviceQueries(codes, scales, torch.full((len(tokens),), tokens.shape[1], dtype=torch.int32, device=tokens.device))


def _never_read() -> Parts:
    raise AssertionError("these documents never were on the host")


def _decoded(codes: Tensor, scales: Tensor | None) -> Tensor:
    return codes.double() if scales is None else codes.double() * scales.double()[..., None]
