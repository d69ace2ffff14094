"""Reading a level's file once, block by block: its checksum, and whether its codes can be what a codec writes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec
from metaindex.storage.files import Files, Written
from metaindex.storage.tensors import DTYPES, Extent

_ROWS_AT_ONCE = 1 << 22
# All exponent bits of a float set: NaN or infinity.
_EXPONENTS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}


def checked(
    files: Files, name: str, extents: dict[str, Extent], lengths: NDArray[np.int32] | None, start: int
) -> tuple[Written, list[str]]:
    """What a level's file holds, and what is wrong with its values. ``extents`` are those of its header.

    ``lengths`` int32 [rows] of its documents, ``None`` where they are not known; ``start`` is its first token.
    """
    units = {}
    for key, extent in extents.items():
        if count := extent.shape[0] * extent.shape[1]:
            units[key] = (extent, (extent.end - extent.begin) // count)
    left = dict.fromkeys(units, b"")
    done = dict.fromkeys(units, 0)
    wrong: dict[str, None] = {}
    size = checksum = 0
    for block in files.blocks(name):
        checksum = zlib.crc32(block, checksum)
        for key, (extent, unit) in units.items():
            piece = block[max(0, extent.begin - size) : max(0, extent.end - size)]
            if not piece:
                continue
            data = left[key] + piece
            whole = len(data) // unit
            left[key] = data[whole * unit :]
            if whole:
                tokens = np.frombuffer(data, DTYPES[extent.dtype], whole * unit // DTYPES[extent.dtype].itemsize)
                past = None if lengths is None else _past(done[key], whole, extent.shape[1], lengths, start)
                wrong.update(dict.fromkeys(faults(key, extent.dtype, tokens.reshape(whole, -1), past)))
                done[key] += whole
        size += len(block)
    return Written(size, checksum), list(wrong)


def checked_in_memory(
    parts: tuple[NDArray, NDArray | None], kind: Codec, lengths: NDArray[np.int32], start: int
) -> Iterator[str]:
    """What is wrong with the values of a level that no file holds."""
    codes, scales = parts
    rows, width, dim = codes.shape
    step = max(1, _ROWS_AT_ONCE // max(1, width * dim))
    for first in range(0, rows, step):
        block = codes[first : first + step]
        past = _past(first * width, len(block) * width, width, lengths, start)
        yield from faults("codes", kind.stored_dtype, block.reshape(-1, dim), past)
        if scales is not None:
            yield from faults("scales", "F32", scales[first : first + step].reshape(-1, 1), past)


def faults(key: str, dtype: str, tokens: NDArray, past: NDArray[np.bool_] | None) -> Iterator[str]:
    """What no codec writes among ``tokens`` [n, numbers] of one tensor; ``past`` [n] marks those past a document's length."""
    if dtype in _EXPONENTS:
        bits, exponent = _EXPONENTS[dtype]
        if ((tokens.view(bits) & exponent) == exponent).any():
            yield f"its {key} hold numbers that are not finite"
        elif key.endswith("scales") and (tokens < 0).any():
            yield f"its {key} hold negative numbers"
    elif (tokens == -128).any():
        yield f"its {key} hold -128, which no encoder writes"
    if past is not None and past.any() and tokens[past].any():
        yield f"its {key} past a document's length are not zero"


def _past(first: int, count: int, width: int, lengths: NDArray[np.int32], start: int) -> NDArray[np.bool_] | None:
    """Which of a level's tokens, ``count`` from ``first`` on, lie past the length of their document."""
    rows, places = np.divmod(np.arange(first, first + count), width)
    if lengths[rows[-1]] >= start + width:  # lengths fall: all of these documents fill the level
        return None
    return np.asarray(start + places >= lengths[rows])
