"""Reading and writing safetensors files: a header that is checked in full before a byte of data is mapped."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import CorruptIndexError
from metaindex.storage.files import Files, Written

# bfloat16 is uint16 in memory: numpy has no such type.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
ALIGNMENT = 64
HEADER_LIMIT = 1 << 16
_FIRST_READ = 4096
_NOT_A_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO)
_PADDING = "padding."

Shape = tuple[int | None, ...]
"""An expected shape; ``None`` stands for any extent."""


class Tensor(NamedTuple):
    """A tensor to write. ``chunks`` are arrays that make up its values when laid end to end."""

    dtype: str
    shape: tuple[int, ...]
    chunks: Iterable[NDArray]


class Extent(NamedTuple):
    """Where a tensor lies in its file: bytes ``[begin, end)`` from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def write(files: Files, name: str, tensors: Mapping[str, Tensor]) -> Written:
    """A new safetensors file. Every tensor starts at a multiple of 64 bytes."""
    header: dict[str, Any] = {}
    layout: list[Tensor] = []
    offset = 0
    for key, tensor in tensors.items():
        gap = -offset % ALIGNMENT
        if gap:
            # The format allows no holes, so the gap is a tensor of its own.
            header[f"{_PADDING}{len(layout)}"] = _entry("U8", (gap,), offset, offset + gap)
            layout.append(Tensor("U8", (gap,), [np.zeros(gap, np.uint8)]))
            offset += gap
        end = offset + prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
        header[key] = _entry(tensor.dtype, tensor.shape, offset, end)
        layout.append(tensor)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    written = files.write(name, _bytes(text, layout))
    assert written.size == 8 + len(text) + offset, f"{name}: the chunks don't add up to the shapes"
    return written


def check(files: Files, name: str, expected: Mapping[str, tuple[str, Shape]], size: int) -> dict[str, Extent]:
    """Where the tensors of a file lie, after its size and header were compared with what the catalog says.

    Raises:
        CorruptIndexError: the file is missing, is a link, or differs in any way.
    """
    try:
        data, actual = files.head(name, _FIRST_READ)
        length = int.from_bytes(data[:8], "little")
        if len(data) == _FIRST_READ < 8 + length <= HEADER_LIMIT:
            data, actual = files.head(name, 8 + length)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise damaged(name, f"it is no file of this index ({error.strerror})") from None
    if actual != size:
        raise damaged(name, f"expected {size} bytes, found {actual}")
    try:
        found = _parse(data, actual)
    except (ValueError, RecursionError) as error:
        raise damaged(name, str(error)) from None
    _compare(name, found, expected)
    return found


def parsed(name: str, data: NDArray[np.uint8], expected: Mapping[str, tuple[str, Shape]]) -> dict[str, NDArray]:
    """The tensors of a whole file that is in memory, as views of ``data``. Raises CorruptIndexError as ``check`` does."""
    try:
        found = _parse(data[:HEADER_LIMIT].tobytes(), len(data))
    except (ValueError, RecursionError) as error:
        raise damaged(name, str(error)) from None
    _compare(name, found, expected)
    return {key: data[e.begin : e.end].view(DTYPES[e.dtype]).reshape(e.shape) for key, e in found.items()}


def _compare(name: str, found: dict[str, Extent], expected: Mapping[str, tuple[str, Shape]]) -> None:
    for key, (dtype, shape) in expected.items():
        if key not in found:
            raise damaged(name, f"it has no tensor {key!r}")
        extent = found[key]
        if extent.begin % ALIGNMENT:
            raise damaged(name, f"tensor {key!r} does not start at a multiple of {ALIGNMENT} bytes")
        if extent.dtype != dtype or not _agrees(extent.shape, shape):
            raise damaged(name, f"expected {key!r} as {dtype} {list(shape)}, found {extent.dtype} {list(extent.shape)}")
    if extra := set(found) - set(expected):
        raise damaged(name, f"it has an unexpected tensor {min(extra)!r}")


def load(files: Files, name: str, expected: Mapping[str, tuple[str, Shape]], size: int) -> dict[str, NDArray]:
    """The tensors of a file, memory-mapped and read-only, after ``check``."""
    extents = check(files, name, expected, size)
    data = files.map(name)
    if len(data) != size:
        raise damaged(name, f"expected {size} bytes, found {len(data)}")
    return {key: data[e.begin : e.end].view(DTYPES[e.dtype]).reshape(e.shape) for key, e in extents.items()}


def read(files: Files, name: str, expected: Mapping[str, tuple[str, Shape]], size: int) -> dict[str, NDArray]:
    """``load`` into memory, by reads: a file that is cut short meanwhile is an error, where a map would end the process."""
    extents = check(files, name, expected, size)
    found = {key: np.empty(e.shape, DTYPES[e.dtype]) for key, e in extents.items()}
    if not files.read_at(name, [(e.begin, found[key].reshape(-1).view(np.uint8).data) for key, e in extents.items()]):
        raise damaged(name, "it was cut short while it was open")
    return found


def damaged(name: str, what: str) -> CorruptIndexError:
    return CorruptIndexError(f"{name}: {what}; restore the index from a copy, or run 'metaindex repair'")


def _entry(dtype: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _bytes(text: bytes, layout: list[Tensor]) -> Iterator[NDArray | bytes]:
    yield len(text).to_bytes(8, "little") + text
    for tensor in layout:
        for chunk in tensor.chunks:
            yield np.asarray(chunk, DTYPES[tensor.dtype])


def _agrees(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(want is None or have == want for have, want in zip(shape, expected))


def _parse(data: bytes, size: int) -> dict[str, Extent]:
    """Extents by name, padding left out. ``data`` starts the file and holds its whole header when the header is legal."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or 8 + length > min(size, HEADER_LIMIT):
        raise ValueError("its header is longer than the file")
    entries = _HEADER.decode(data[8 : 8 + length].decode("utf-8"))
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    entries.pop("__metadata__", None)
    found = {name: _extent(name, entry, 8 + length) for name, entry in entries.items()}
    end = 8 + length
    for extent in sorted(found.values(), key=lambda extent: (extent.begin, extent.end)):
        if extent.begin != end:
            raise ValueError("its tensors overlap or leave holes")
        end = extent.end
    if end != size:
        raise ValueError("its tensors don't fill the file")
    return {name: extent for name, extent in found.items() if not name.startswith(_PADDING)}


def _extent(name: str, entry: Any, base: int) -> Extent:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header entry {name!r} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} has an unknown dtype")
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and len(shape) <= 8):
        raise ValueError(f"tensor {name!r} has a malformed shape or offsets")
    # Python integers don't overflow, so a product of hostile extents can't wrap around to the right size.
    if offsets[1] - offsets[0] != prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"the bytes of tensor {name!r} don't match its shape")
    return Extent(dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _counts(values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {int} and all(0 <= value < 1 << 63 for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("its header names a key twice")
    return entries


_HEADER = json.JSONDecoder(object_pairs_hook=_unique)  # made once: an index of 100 segments has 800 headers
