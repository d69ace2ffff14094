"""Inner products of query tokens and document tokens, each loaded from where it lies."""

from __future__ import annotations

import triton
import triton.language as tl

# float32 holds 2**23 + 2**22 + n exactly for |n| < 2**22, with n in its lowest bits.
_ZERO_BITS = tl.constexpr(0x4B400000)
_ZERO_VALUE = tl.constexpr(12582912.0)


@triton.jit
def load_rows(pointers, wanted, start, SHAPE: tl.constexpr, PACKED: tl.constexpr = 1):
    """The numbers [rows, dims] at ``pointers`` [rows] from dimension ``start`` on; 0 where not ``wanted`` [rows]. ``PACKED``
    of them are one number."""
    step: tl.constexpr = SHAPE.tile.dims // PACKED
    end: tl.constexpr = SHAPE.dim // PACKED
    dims = start + tl.arange(0, step)
    mask = wanted[:, None]
    if end % step != 0:
        mask = mask & (dims < end)[None, :]
    return tl.load(pointers[:, None] + dims[None, :], mask=mask, other=0)


@triton.jit
def _accumulated(products, query, documents, INTERPRETED: tl.constexpr):
    """``products`` [rows, columns] plus ``query`` [rows, dims] times ``documents`` [columns, dims] transposed."""
    if documents.dtype == tl.int8:
        return tl.dot(query, tl.trans(documents), products, out_dtype=tl.int32)
    elif INTERPRETED:
        # The interpreter would multiply the bits of bfloat16, and numpy rounds a product by where it stands in a matrix, which
        # tells equal documents apart.
        return tl.dot(query.to(tl.float64), tl.trans(documents.to(tl.float64)), products)
    else:
        return tl.dot(query, tl.trans(documents), products, input_precision="ieee")


@triton.jit
def products_of_tile(query, query_pointers, query_wanted, pointers, wanted, SHAPE: tl.constexpr):
    """Inner products float32 [rows, columns], of int8 without scales, exact.

    ``query`` [rows, dims] holds the query tokens where one step takes all dimensions, and is ``None`` where they are loaded
    step by step from ``query_pointers`` [rows]. ``pointers`` and ``wanted`` [columns] tell where the document tokens lie.
    """
    rows: tl.constexpr = SHAPE.tile.queries * SHAPE.tile.query_tokens
    columns: tl.constexpr = SHAPE.tile.documents * SHAPE.tile.tokens
    integers: tl.constexpr = pointers.dtype.element_ty == tl.int8
    # So few products sum up to less than 2**22. Accumulators that start from the right bits are floats as they stand then;
    # the conversion that this saves is slow, and there is one for every number that the matrix unit puts out.
    shifted: tl.constexpr = integers and SHAPE.dim * 127 * 127 < 2**22
    if integers:
        products = tl.full([rows, columns], _ZERO_BITS if shifted else 0, tl.int32)
    else:
        products = tl.zeros([rows, columns], tl.float64 if SHAPE.interpreted else tl.float32)
    if query is not None:
        products = _accumulated(products, query, load_rows(pointers, wanted, 0, SHAPE), SHAPE.interpreted)
    else:
        for start in range(0, SHAPE.dim, SHAPE.tile.dims):
            step = load_rows(query_pointers, query_wanted, start, SHAPE)
            products = _accumulated(products, step, load_rows(pointers, wanted, start, SHAPE), SHAPE.interpreted)
    if shifted:
        return products.to(tl.float32, bitcast=True) - _ZERO_VALUE
    return products.to(tl.float32)


@triton.jit
def _four_products(a, b, total, INTERPRETED: tl.constexpr):
    """``total`` plus the inner products of the four int8 in each int32 of ``a`` and ``b``."""
    if INTERPRETED:
        for shift in tl.static_range(24, -8, -8):
            total += ((a << shift) >> 24) * ((b << shift) >> 24)
        return total
    return tl.inline_asm_elementwise("dp4a.s32.s32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, total], tl.int32, True, 1)


@triton.jit
def products_of_single(query_pointers, query_wanted, pointers, wanted, SHAPE: tl.constexpr):
    """As ``products_of_tile`` for one query token, without the matrix unit: float32 [1, columns]."""
    columns: tl.constexpr = SHAPE.tile.documents * SHAPE.tile.tokens
    dims: tl.constexpr = SHAPE.tile.dims
    kind: tl.constexpr = pointers.dtype.element_ty
    if kind == tl.int8 and SHAPE.alignment >= 4:
        query_words = query_pointers.to(tl.pointer_type(tl.int32))
        words = pointers.to(tl.pointer_type(tl.int32))
        products = tl.zeros([columns, dims // 4], tl.int32)
        for start in tl.range(0, SHAPE.dim // 4, dims // 4, num_stages=SHAPE.tile.stages):
            query = load_rows(query_words, query_wanted, start, SHAPE, 4)
            products = _four_products(query, load_rows(words, wanted, start, SHAPE, 4), products, SHAPE.interpreted)
    else:
        wide: tl.constexpr = tl.int32 if kind == tl.int8 else tl.float32
        products = tl.zeros([columns, dims], wide)
        for start in tl.range(0, SHAPE.dim, dims, num_stages=SHAPE.tile.stages):
            query = load_rows(query_pointers, query_wanted, start, SHAPE).to(wide)
            products += query * load_rows(pointers, wanted, start, SHAPE).to(wide)
    return tl.sum(products, axis=1).to(tl.float32)[None, :]
