"""From tokens to levels: longest documents first, each level encoded straight from its slice of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec, Parts
from metaindex.storage.schema import Schema
from metaindex.storage.tensors import ALIGNMENT
from metaindex.types import Levels

_BLOCK_BYTES = 16 << 20


class Encode(Protocol):
    """Encodes tokens [..., d] into ``out`` where it is given."""

    def __call__(self, codec: Codec, tokens: NDArray[np.float32], out: Parts | None = None) -> Parts: ...


def encode(codec: Codec, tokens: NDArray[np.float32], out: Parts | None = None) -> Parts:
    """The codec's own encoder, in numpy."""
    parts = codec.encode(tokens)
    if out is None:
        return parts
    out.codes[...] = parts.codes
    if out.scales is not None:
        out.scales[...] = parts.scales
    return out


def arena(dim: int, wanted: Sequence[tuple[Codec, int, int]]) -> list[Parts]:
    """Room for levels (codec, rows, width) in one allocation, each array at a multiple of 64 bytes.

    One large allocation gets huge pages from the kernel, where many small ones would not.
    """
    arrays: list[tuple[tuple[int, ...], np.dtype, int]] = []
    offset = 0
    for codec, rows, width in wanted:
        kinds: list[tuple[tuple[int, ...], np.dtype]] = [((rows, width, dim), codec.dtype)]
        if codec.scaled:
            kinds.append(((rows, width), np.dtype(np.float32)))
        for shape, dtype in kinds:
            arrays.append((shape, dtype, offset))
            offset += prod(shape) * dtype.itemsize
            offset += -offset % ALIGNMENT
    memory = np.empty(offset + ALIGNMENT, np.uint8)
    memory = memory[-memory.ctypes.data % ALIGNMENT :]
    views = (memory[at : at + prod(shape) * dtype.itemsize].view(dtype).reshape(shape) for shape, dtype, at in arrays)
    return [Parts(next(views), next(views) if codec.scaled else None) for codec, _, _ in wanted]


def empty_levels(schema: Schema, counts: Sequence[int]) -> list[tuple[Parts, ...]]:
    """Room for levels of so many rows, in every codec that keeps them."""
    assert schema.dim is not None
    kinds = [schema.kept_in(level) for level in range(len(counts))]
    wanted = [(kind, rows, schema.levels.width(level)) for level, rows in enumerate(counts) for kind in kinds[level]]
    made = iter(arena(schema.dim, wanted))
    return [tuple(islice(made, len(each))) for each in kinds]


def rows_reaching(lengths: NDArray[np.int32], levels: Levels) -> list[int]:
    """How many documents reach each level that any of them reaches; ``lengths`` fall."""
    counts = [int(np.count_nonzero(lengths > levels.start(level))) for level in range(len(levels))]
    return [count for count in counts if count]


def pack(
    tokens: NDArray[np.float32], lengths: NDArray[np.int32], schema: Schema, encode: Encode = encode
) -> tuple[list[tuple[Parts, ...]], NDArray[np.int64] | None]:
    """Cut documents [N, T, d] of ``lengths`` int32 [N], N >= 1, into encoded levels.

    Returns the levels that any document reaches, each in all codecs that keep it, codes [rows, width, d], and the order of
    their rows as places in ``tokens``: longest first, equal lengths as they came; ``None`` when they came so. Tokens past a
    document's length are zeros.
    """
    _, given, dim = tokens.shape
    order = None
    if np.any(lengths[1:] > lengths[:-1]):
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
    levels = schema.levels
    counts = rows_reaching(lengths, levels)
    packed = empty_levels(schema, counts)
    for level, (rows, outs) in enumerate(zip(counts, packed)):
        kinds = schema.kept_in(level)
        start, stop = levels.start(level), levels.stop(level)
        if order is None and stop <= given and lengths[rows - 1] >= stop:
            for kind, out in zip(kinds, outs):
                encode(kind, tokens[:rows, start:stop], out)
            continue
        step = max(1, _BLOCK_BYTES // (4 * dim * (stop - start)))
        for first in range(0, rows, step):
            block = slice(first, min(first + step, rows))
            chosen = tokens[block] if order is None else tokens[order[block]]
            filled = _level_of(chosen, lengths[block], start, stop)
            for kind, out in zip(kinds, outs):
                encode(kind, filled, Parts(out.codes[block], None if out.scales is None else out.scales[block]))
    return packed, order


def _level_of(tokens: NDArray[np.float32], lengths: NDArray[np.int32], start: int, stop: int) -> NDArray[np.float32]:
    """Tokens [start, stop) of each document, zeros past its length."""
    cut = tokens[:, start:stop]
    filled = np.zeros((len(tokens), stop - start, tokens.shape[2]), tokens.dtype)
    within = np.arange(start, start + cut.shape[1]) < lengths[:, None]
    np.copyto(filled[:, : cut.shape[1]], cut, where=within[..., None])
    return filled
