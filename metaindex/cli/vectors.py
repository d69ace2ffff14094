"""Vector files: .npy, .npz or .safetensors, with JSON lines of id, metadata and length beside them.

``docs.npy`` holds [N, T, d]; ``docs.npz`` and ``docs.safetensors`` hold it as ``vectors``. ``docs.jsonl``, if it is there, has
one object for each document: ``{"id": 7, "metadata": {...}, "length": 42}``, every key optional but the same in all lines.
Empty lines don't count. A file of queries is the same with [B, R, d], and may be one query [R, d].
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import ShapeError


@dataclass(frozen=True, eq=False)
class VectorFile:
    """``vectors`` [N, T, d], memory-mapped where the format allows, and what the JSON lines say of each document."""

    vectors: Any
    lengths: NDArray[np.int64] | None
    ids: list[Any] | None
    metadata: list[dict[str, Any] | None] | None

    def batches(self, size: int) -> Iterator[Any]:
        """Runs of ``size`` documents, as ``MetaIndex.add`` takes them."""
        for start in range(0, len(self.vectors), size):
            batch = self.vectors[start : start + size]
            yield batch if self.lengths is None else self._cut(batch, start)

    def queries(self) -> Any:
        """All of it, as ``MetaIndex.search`` takes it."""
        return self.vectors if self.lengths is None else self._cut(self.vectors, 0)

    def _cut(self, batch: NDArray, start: int) -> list[NDArray]:
        assert self.lengths is not None
        return [tokens[:length] for tokens, length in zip(batch, self.lengths[start:])]


def read(path: str) -> VectorFile:
    """Read the documents [N, T, d] at ``path`` and the JSON lines beside them.

    Raises:
        OSError: the file can't be opened. ValueError: it can't be read.
        ShapeError: the vectors are of another rank, or the JSON lines do not fit them.
    """
    vectors = _load(Path(path))
    if vectors.ndim != 3:
        fix = "; add a batch axis" if vectors.ndim == 2 else ""
        raise ShapeError(f"{path}: expected [N, T, d], got {vectors.shape}{fix}")
    return _with_lines(vectors, Path(path).with_suffix(".jsonl"))


def read_queries(path: str) -> Any:
    """Read the queries [B, R, d], or one query [R, d], at ``path``, cut to the lengths in the JSON lines beside them.

    Returns:
        What ``MetaIndex.search`` takes: an array [B, R, d] or a list of [r_i, d]. Raises as ``read``.
    """
    vectors = _load(Path(path))
    if vectors.ndim not in (2, 3):
        raise ShapeError(f"{path}: expected [B, R, d] or one query [R, d], got {vectors.shape}")
    return _with_lines(np.asarray(vectors) if vectors.ndim == 3 else vectors[None], Path(path).with_suffix(".jsonl")).queries()


def _with_lines(vectors: Any, path: Path) -> VectorFile:
    if not path.exists():
        return VectorFile(vectors, None, None, None)
    lines = _lines(path)
    if len(lines) != len(vectors):
        raise ShapeError(f"{path}: expected {len(vectors)} lines, one for each document, got {len(lines)}")
    return VectorFile(
        vectors,
        _lengths(lines, vectors.shape[1], path),
        _column(lines, "id", path),
        _column(lines, "metadata", path, optional=True),
    )


def _load(path: Path) -> Any:
    if path.suffix not in _READERS:
        raise ValueError(f"{path}: expected .npy, .npz or .safetensors")
    path.open("rb").close()  # what keeps a file from being opened is told best by Python; the readers leave out its name
    try:
        return _READERS[path.suffix](path)
    except MemoryError:
        raise
    except Exception as error:  # for a damaged file the readers raise errors of a dozen classes
        raise ValueError(f"{path}: can't be read as {path.suffix}: {str(error) or type(error).__name__}") from error


def _npy(path: Path) -> Any:
    array = np.lib.format.open_memmap(path, mode="r")
    if array.ndim != 3 or not array.flags.c_contiguous or not array.size:
        return array
    return _Stored(path, array.offset, array.dtype, array.shape)


def _npz(path: Path) -> NDArray:
    # Without this numpy takes what is no archive for a pickle.
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive, or a truncated one")
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[_only("vectors", archive.files)])


def _safetensors(path: Path) -> NDArray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:
        name = _only("vectors", list(tensors.keys()))
        if tensors.get_slice(name).get_dtype() == "BF16":
            return _bfloat16(path, name)
        return np.asarray(tensors.get_tensor(name))


def _bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """A tensor as float32: numpy has no bfloat16, whose numbers are the upper halves of float32 numbers."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        file.seek(entry["data_offsets"][0], 1)
        halves = np.fromfile(file, "<u2", int(np.prod(entry["shape"], dtype=np.int64)))
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


class _Stored:
    """An array [N, T, d] in a file, of which slices are read: a map would keep in memory what has been added already."""

    ndim = 3

    def __init__(self, path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._path, self._offset, self.dtype, self.shape = path, offset, dtype, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        start, stop, _ = rows.indices(len(self))
        size = self.shape[1] * self.shape[2]
        offset = self._offset + start * size * self.dtype.itemsize
        count = max(0, stop - start) * size
        found = np.fromfile(self._path, self.dtype, count, offset=offset)
        if len(found) < count:
            raise ValueError(f"{self._path}: it was cut short while it was read")
        return found.reshape(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self[:].astype(dtype or self.dtype, copy=False)


_READERS: dict[str, Callable[[Path], Any]] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}


def _only(name: str, names: list[str]) -> str:
    if name in names:
        return name
    if len(names) == 1:
        return names[0]
    raise ValueError(f"expected an array named 'vectors', got {', '.join(names) or 'none'}")


def _lines(path: Path) -> dict[int, dict[str, Any]]:
    """The objects by the number of their line, from 1."""
    lines = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                lines[number] = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: expected a JSON object: {error}") from None
            if not isinstance(lines[number], dict):
                raise ValueError(f"{path}:{number}: expected a JSON object, got {type(lines[number]).__name__}")
    return lines


def _lengths(lines: dict[int, dict[str, Any]], tokens: int, path: Path) -> NDArray[np.int64] | None:
    values = _column(lines, "length", path)
    if values is None:
        return None
    for number, value in zip(lines, values):
        if type(value) is not int or not 1 <= value <= tokens:
            raise ValueError(f"{path}:{number}: expected a length from 1 to {tokens}, got {value!r}")
    return np.array(values, dtype=np.int64)


def _column(lines: dict[int, dict[str, Any]], key: str, path: Path, *, optional: bool = False) -> list[Any] | None:
    have = sum(key in line for line in lines.values())
    if have == 0:
        return None
    if have < len(lines) and not optional:
        raise ShapeError(f"{path}: expected {key!r} in every line or in none, got it in {have} of {len(lines)}")
    return [line.get(key) for line in lines.values()]
