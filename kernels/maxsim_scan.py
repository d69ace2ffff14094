"""maxsim_scan: some queries against runs of documents."""

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


@triton.jit(do_not_specialize=["query_tiles", "batch", "query_tokens", "table_tokens", "r_c", "columns"])
def maxsim_scan_kernel(
    table,
    asked,
    found,
    runs,
    query_tiles: tl.int32,
    batch: tl.int32,
    query_tokens: tl.int32,
    table_tokens: tl.int32,
    r_c: tl.int32,
    columns: tl.int64,
    SHAPE: tl.constexpr,
):
    """One program: a tile of queries, which stays on the chip, and a run of documents. Programs of the same run follow each
    other, so that its documents come from memory once and from the L2 cache for the other queries."""
    program = tl.program_id(0)
    first_query = (program % query_tiles) * SHAPE.tile.queries
    run = runs + (program // query_tiles).to(tl.int64) * 3
    segment, first, count = tl.load(run), tl.load(run + 1), tl.load(run + 2)
    segment_row = tl.load(table.first_rows + segment)
    segments = tl.full([1], 0, tl.int32) + segment
    rows = query_rows(asked, first_query, 0, batch, query_tokens, SHAPE)
    query = None
    if SHAPE.resident:
        query = load_rows(rows.pointers, rows.there, 0, SHAPE)
    tokens = tokens_from(table, segments, 0, table_tokens, SHAPE)
    for start in tl.range(0, count, SHAPE.tile.documents, num_stages=SHAPE.tile.stages):
        document = start + tl.arange(0, SHAPE.tile.documents)
        there = document < count
        row = segment_row + first + document
        wanted = there
        if table.allow is not None:
            wanted &= tl.load(table.allow + row, mask=there, other=0) != 0
        limit = tl.where(wanted, r_c, 0)
        if table.lengths is not None:
            limit = tl.minimum(tl.load(table.lengths + row, mask=wanted, other=0), r_c)
        scores = tile_scores(
            query, rows, asked, first_query, batch, query_tokens,
            table, tokens, table_tokens, segments, first + document, limit, SHAPE,
        )  # fmt: skip
        put(found, columns, scores, first_query, batch, row, there, row, wanted, table, SHAPE)


def launch(
    card: tiles.Card,
    table: DeviceTable,
    queries: DeviceQueries,
    r_c: int,
    span: tuple[int, int],
    allow: Tensor | None,
    out: Output,
) -> Launch | None:
    """``Operations.maxsim_scan`` as a launch; ``None`` where there is nothing to score."""
    batch, query_tokens, rows = len(queries), queries.codes.shape[1], span[1] - span[0]
    if not batch or rows <= 0:
        return None
    asked = problem(table, queries, r_c, allow, batch)
    tile = tiles.tile(card, asked)
    shape = tiles.shape(asked, tile, full=table.full, interpreted=interpreted(maxsim_scan_kernel))
    query_tiles = triton.cdiv(batch, tile.queries)
    runs = table.tiles(tiles.run_length(card, tile, rows, query_tiles), span)
    found, columns = found_group(out)
    return Launch(
        maxsim_scan_kernel,
        query_tiles * len(runs),
        (
            table_group(table, allow),
            asked_group(queries),
            found,
            runs,
            query_tiles,
            batch,
            query_tokens,
            table.tokens,
            r_c,
            columns,
            shape,
        ),
        options(tile.warps, tile.stages, tile.programs),
    )
