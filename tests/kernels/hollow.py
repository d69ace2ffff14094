"""Arguments of operations that have shapes but no data behind them: what launches are made of can be looked at and compiled."""

from __future__ import annotations

import torch

from metaindex.codecs import codec
from metaindex.device.operations import DeviceQueries, Hits
from metaindex.device.table import DeviceTable


def table(
    kind: str, dim: int, tokens: int, rows: int, *, full: bool = True, segments: int = 1, moved: bool = False
) -> DeviceTable:
    """A table of ``rows`` documents of up to ``tokens`` tokens whose addresses lead nowhere; ``moved``: rows are not in the
    order of addition."""
    scaled = codec(kind).scaled
    long, int32 = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    each = [rows // segments + (number < rows % segments) for number in range(segments)]
    return DeviceTable(
        codec=kind,
        dim=dim,
        rows=rows,
        codes=long,
        scales=long if scaled else None,
        first_rows=long,
        lengths=int32,
        starts=int32,
        widths=int32,
        token_levels=int32,
        token_codes=long,
        token_scales=long if scaled else None,
        token_widths=int32,
        places=int32 if moved else None,
        rows_at=long if moved else None,
        shape=((0,), (tokens,)),
        level_rows=tuple((number,) for number in each),
        full=full,
        segment_rows=tuple(each),
        held=(),
    )


def queries(kind: str, batch: int, tokens: int, dim: int) -> DeviceQueries:
    scales = torch.zeros((batch, tokens)) if codec(kind).scaled else None
    return DeviceQueries(
        torch.zeros((batch, tokens, dim), dtype=getattr(torch, kind)), scales, torch.zeros(batch, dtype=torch.int32)
    )


def hits(batch: int, capacity: int) -> Hits:
    """Hits whose keys take no memory."""
    counts, thresholds = torch.zeros(batch, dtype=torch.int32), torch.zeros(batch, dtype=torch.int64)
    return Hits(torch.zeros(1, dtype=torch.int64).expand(batch, capacity), counts, thresholds)
