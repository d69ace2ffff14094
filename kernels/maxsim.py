"""MaxSim of a tile: some queries against some documents, wherever their tokens lie."""

from __future__ import annotations

import triton
import triton.language as tl

from metaindex.kernels.arguments import QueryRows, Tokens
from metaindex.kernels.products import products_of_single, products_of_tile


@triton.jit
def query_rows(asked, first_query, first_token, batch, query_tokens, SHAPE: tl.constexpr):
    """The ``QueryRows`` from a query and a token on."""
    row = tl.arange(0, SHAPE.tile.queries * SHAPE.tile.query_tokens)
    query = first_query + row // SHAPE.tile.query_tokens
    token = first_token + row % SHAPE.tile.query_tokens
    there = (query < batch) & (token < query_tokens)
    at = query.to(tl.int64) * query_tokens + token
    counts = token < tl.load(asked.lengths + query, mask=there, other=0)
    weights = counts.to(tl.float32)
    if SHAPE.scaled:
        weights = tl.load(asked.scales + at, mask=counts, other=0)
    return QueryRows(asked.codes + at * SHAPE.dim, there, weights)


@triton.jit
def tokens_from(table, segment, start, tokens, SHAPE: tl.constexpr):
    """The ``Tokens`` from ``start`` on for ``segment`` [documents or 1]; where the table has no more, at address 0."""
    token = start + tl.arange(0, SHAPE.tile.tokens)[None, :]
    at = segment.to(tl.int64)[:, None] * tokens + token
    codes = tl.load(table.codes + at, mask=token < tokens, other=0)
    widths = tl.load(table.widths + token, mask=token < tokens, other=0)
    scales = codes  # Triton 3.6 can't return None
    if SHAPE.scaled:
        scales = tl.load(table.scales + at, mask=token < tokens, other=0)
    return Tokens(codes, scales, widths)


@triton.jit
def _maxima_of_block(query, rows, tokens, start, row, limit, SHAPE: tl.constexpr):
    """The largest inner product of each query token with the tile's tokens of each document: float32 [rows, documents]."""
    columns: tl.constexpr = SHAPE.tile.documents * SHAPE.tile.tokens
    kind: tl.constexpr = rows.pointers.dtype.element_ty
    alignment: tl.constexpr = SHAPE.alignment
    token_bytes: tl.constexpr = SHAPE.dim * kind.primitive_bitwidth // 8
    counts = start + tl.arange(0, SHAPE.tile.tokens)[None, :] < limit[:, None]
    counts = tl.reshape(counts, [columns])
    at = row.to(tl.int64)[:, None] * tokens.widths
    pointers = tl.reshape(tokens.codes + at * token_bytes, [columns]).to(tl.pointer_type(kind))
    pointers = tl.multiple_of(pointers, alignment)
    if SHAPE.tile.queries * SHAPE.tile.query_tokens == 1:
        products = products_of_single(rows.pointers, rows.there, pointers, counts, SHAPE)
    else:
        products = products_of_tile(query, rows.pointers, rows.there, pointers, counts, SHAPE)
    if SHAPE.scaled:
        scales = tl.reshape(tokens.scales + at * 4, [columns]).to(tl.pointer_type(tl.float32))
        products *= tl.load(scales, mask=counts, other=0)[None, :]
    if not SHAPE.exact:
        products = tl.where(counts[None, :], products, -float("inf"))
    products = tl.reshape(products, [products.shape[0], SHAPE.tile.documents, SHAPE.tile.tokens])
    return tl.max(products, axis=2)


@triton.jit
def _sums(query, rows, table, tokens, table_tokens, segment, row, limit, SHAPE: tl.constexpr):
    """Maxima over all tokens of the budget, summed over the tile's tokens of each query: float32 [queries, documents]."""
    if SHAPE.token_blocks:
        maxima = tl.full([SHAPE.tile.queries * SHAPE.tile.query_tokens, SHAPE.tile.documents], -float("inf"), tl.float32)
        for start in range(0, tl.max(limit), SHAPE.tile.tokens):
            block = tokens_from(table, segment, start, table_tokens, SHAPE)
            maxima = tl.maximum(maxima, _maxima_of_block(query, rows, block, start, row, limit, SHAPE))
    else:
        maxima = _maxima_of_block(query, rows, tokens, 0, row, limit, SHAPE)
    weights = rows.weights[:, None]
    maxima = tl.where(weights > 0, maxima, 0.0) * weights  # not the other way: 0 times -inf
    return tl.sum(tl.reshape(maxima, [SHAPE.tile.queries, SHAPE.tile.query_tokens, SHAPE.tile.documents]), axis=1)


@triton.jit
def tile_scores(
    query, rows, asked, first_query, batch, query_tokens, table, tokens, table_tokens, segment, row, limit, SHAPE: tl.constexpr
):
    """Scores float32 [queries, documents] of documents at ``row`` [documents] of ``segment`` [documents or 1], of which the
    first ``limit`` [documents] tokens count."""
    if SHAPE.query_blocks:
        scores = tl.full([SHAPE.tile.queries, SHAPE.tile.documents], 0, tl.float32)
        for start in range(0, query_tokens, SHAPE.tile.query_tokens):
            block = query_rows(asked, first_query, start, batch, query_tokens, SHAPE)
            scores += _sums(query, block, table, tokens, table_tokens, segment, row, limit, SHAPE)
        return scores
    else:
        return _sums(query, rows, table, tokens, table_tokens, segment, row, limit, SHAPE)
