"""The codecs' encoders in C++: bit for bit what the numpy codecs give, written straight into the arrays that keep them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from metaindex import _native
from metaindex.codecs.base import Codec, Parts


def encode(codec: Codec, tokens: NDArray[np.float32], out: Parts | None = None, num_threads: int = 1) -> Parts:
    """Encode tokens float32 [..., d]; with ``out``, into its ``codes`` [..., d] and ``scales`` [...].

    Tokens that are float16 already are copied where the codec keeps just that. ``tokens`` and ``out`` may be slices of larger
    arrays. Without the compiled module numpy does the same, slower.
    """
    tokens = np.asarray(tokens)
    if out is None:
        out = empty(codec, tokens.shape)
    if tokens.dtype == np.float16 and codec.name == "float16":
        out.codes[...] = tokens
        return out
    tokens = np.asarray(tokens, dtype=np.float32)
    if _native.missing is not None or codec.name == "float32":
        fresh = codec.encode(tokens)
        out.codes[...] = fresh.codes
        if out.scales is not None:
            out.scales[...] = fresh.scales
        return out
    source = _three_axes(tokens, tokens.shape[-1:])
    if source.dtype.byteorder not in "=|" or (source.shape[-1] > 1 and source.strides[-1] != source.itemsize):
        source = np.ascontiguousarray(source, dtype=np.float32)
    codes = _in_place(out.codes, tokens.shape[-1:])
    scales = None if out.scales is None else _in_place(out.scales, ())
    _native.core.encode(codec.name, source, codes, scales, num_threads=num_threads)
    return out


def empty(codec: Codec, shape: tuple[int, ...]) -> Parts:
    """Uninitialised parts for tokens of ``shape`` [..., d]."""
    return Parts(np.empty(shape, codec.dtype), np.empty(shape[:-1], np.float32) if codec.scaled else None)


def _three_axes(array: NDArray, last: tuple[int, ...]) -> NDArray:
    """An array [..., *last] as [n, m, *last]: a view where strides allow."""
    leading = array.shape[: array.ndim - len(last)]
    if len(leading) == 2:
        return array
    if len(leading) < 2:
        return array[(None,) * (2 - len(leading))]
    return array.reshape(leading[0], math.prod(leading[1:]), *last)


def _in_place(array: NDArray, last: tuple[int, ...]) -> NDArray:
    """The same, and always a view: results that were written into a copy would be lost."""
    view = _three_axes(array, last)
    if view.size and not np.may_share_memory(view, array):
        raise ValueError(f"out: expected axes that can be joined in place, got strides {array.strides} of shape {array.shape}")
    return view
