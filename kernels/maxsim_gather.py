"""maxsim_gather: some queries against listed documents, each read where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from metaindex.kernels import tiles
from metaindex.kernels.hits import put
from metaindex.kernels.launch import Launch, asked_group, found_group, interpreted, options, problem, table_group
from metaindex.kernels.maxsim import query_rows, tile_scores, tokens_from
from metaindex.kernels.products import load_rows

if TYPE_CHECKING:
    from torch import Tensor

    from metaindex.device.operations import DeviceQueries, Output
    from metaindex.device.table import DeviceTable

_ENDS = tl.constexpr(64)  # of segments, looked at together: more than there mostly are


@triton.jit
def _segments_of(first_rows, segments, row):
    """The segment int32 [n] that each ``row`` int64 [n] of the snapshot is in: how many end at it or before."""
    segment = tl.zeros([row.shape[0]], tl.int32)
    for start in range(0, segments, _ENDS):
        number = start + tl.arange(0, _ENDS)
        ends = tl.load(first_rows + 1 + number, mask=number < segments, other=2**63 - 1)
        segment += tl.sum((ends[None, :] <= row[:, None]).to(tl.int32), axis=1)
    return segment


@triton.jit(
    do_not_specialize=[
        "list_stride", "count", "query_tiles", "segments", "batch", "query_tokens", "table_tokens", "r_c", "columns"
    ]
)  # fmt: skip
def maxsim_gather_kernel(
    table,
    asked,
    found,
    candidates,
    list_stride: tl.int64,
    count: tl.int32,
    query_tiles: tl.int32,
    segments: tl.int32,
    batch: tl.int32,
    query_tokens: tl.int32,
    table_tokens: tl.int32,
    r_c: tl.int32,
    columns: tl.int64,
    SHAPE: tl.constexpr,
):
    """One program: a tile of queries and a tile of their ``count`` candidates. ``list_stride`` is 0 where all queries have one
    list, and else a tile has one query."""
    program = tl.program_id(0)
    first_query = (program % query_tiles) * SHAPE.tile.queries
    column = (program // query_tiles) * SHAPE.tile.documents + tl.arange(0, SHAPE.tile.documents)
    there = column < count
    row = tl.load(candidates + first_query.to(tl.int64) * list_stride + column, mask=there, other=-1)
    wanted = row >= 0
    if table.allow is not None:
        wanted &= tl.load(table.allow + row, mask=wanted, other=0) != 0
    limit = tl.where(wanted, r_c, 0)
    if table.lengths is not None:
        limit = tl.minimum(tl.load(table.lengths + row, mask=wanted, other=0), r_c)
    row = tl.where(wanted, row, 0)
    segment = _segments_of(table.first_rows, segments, row)
    segment_row = row - tl.load(table.first_rows + segment)
    rows = query_rows(asked, first_query, 0, batch, query_tokens, SHAPE)
    query = None
    if SHAPE.resident:
        query = load_rows(rows.pointers, rows.there, 0, SHAPE)
    tokens = tokens_from(table, segment, 0, table_tokens, SHAPE)
    scores = tile_scores(
        query, rows, asked, first_query, batch, query_tokens, table, tokens, table_tokens, segment, segment_row, limit, SHAPE
    )
    put(found, columns, scores, first_query, batch, column, there, row, wanted, table, SHAPE)


def launch(
    card: tiles.Card,
    table: DeviceTable,
    queries: DeviceQueries,
    r_c: int,
    candidates: Tensor,
    allow: Tensor | None,
    out: Output,
) -> Launch | None:
    """``Operations.maxsim_gather`` as a launch; ``None`` where there is nothing to score."""
    batch, query_tokens, count = len(queries), queries.codes.shape[1], candidates.shape[1]
    if not batch or not count:
        return None
    own_lists = len(candidates) > 1
    asked = problem(table, queries, r_c, allow, 1 if own_lists else batch)
    tile = tiles.tile(card, asked)
    shape = tiles.shape(asked, tile, full=table.full, interpreted=interpreted(maxsim_gather_kernel))
    query_tiles = batch if own_lists else triton.cdiv(batch, tile.queries)
    if candidates.stride(1) != 1:
        candidates = candidates.contiguous()
    found, columns = found_group(out)
    return Launch(
        maxsim_gather_kernel,
        query_tiles * triton.cdiv(count, tile.documents),
        (
            table_group(table, allow),
            asked_group(queries),
            found,
            candidates,
            candidates.stride(0) if own_lists else 0,
            count,
            query_tiles,
            len(table.segment_rows),
            batch,
            query_tokens,
            table.tokens,
            r_c,
            columns,
            shape,
        ),
        options(tile.warps, tile.stages, tile.programs),
    )
