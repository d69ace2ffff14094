"""Vector files: .npy, .npz or .safetensors, with JSON lines of id, metadata and length beside them.

``docs.npy`` holds [N, T, d]; ``docs.npz`` and ``docs.safetensors`` hold it as ``vectors``. ``docs.jsonl``, if it is there, has
one object for each document: ``{"id": 7, "metadata": {...}, "length": 42}``, every key optional but the same in all lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import ShapeError


@dataclass(frozen=True, eq=False)
class VectorFile:
    """``vectors`` [N, T, d], memory-mapped where the format allows, and what the JSON lines say of each document."""

    vectors: NDArray
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
    """Read the vector file at ``path`` and the JSON lines beside it.

    Raises:
        ValueError: not a format this reads. ShapeError: the JSON lines do not fit the vectors.
    """
    vectors = _load(Path(path))
    if vectors.ndim == 2:
        vectors = vectors[None]
    beside = Path(path).with_suffix(".jsonl")
    lines = _lines(beside)
    if lines is None:
        return VectorFile(vectors, None, None, None)
    if len(lines) != len(vectors):
        raise ShapeError(f"{beside}: expected {len(vectors)} lines, one for each document, got {len(lines)}")
    return VectorFile(
        vectors,
        _lengths(_column(lines, "length", beside), vectors, beside),
        _column(lines, "id", beside),
        _column(lines, "metadata", beside, optional=True),
    )


def _load(path: Path) -> NDArray:
    if path.suffix == ".npy":
        array: NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[_only("vectors", archive.files, path)])
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as tensors:
            name = _only("vectors", list(tensors.keys()), path)
            return np.asarray(tensors.get_tensor(name))
    raise ValueError(f"{path}: expected .npy, .npz or .safetensors")


def _only(name: str, names: list[str], path: Path) -> str:
    if name in names:
        return name
    if len(names) == 1:
        return names[0]
    raise ValueError(f"{path}: expected an array named 'vectors', got {', '.join(names) or 'none'}")


def _lines(path: Path) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    lines = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: expected a JSON object: {error}") from None
            if not isinstance(lines[-1], dict):
                raise ValueError(f"{path}:{number}: expected a JSON object, got {line.strip()[:40]}")
    return lines


def _lengths(values: list[Any] | None, vectors: NDArray, path: Path) -> NDArray[np.int64] | None:
    if values is None:
        return None
    for number, value in enumerate(values, 1):
        if type(value) is not int or not 1 <= value <= vectors.shape[1]:
            raise ValueError(f"{path}:{number}: expected a length from 1 to {vectors.shape[1]}, got {value!r}")
    return np.array(values, dtype=np.int64)


def _column(lines: list[dict[str, Any]], key: str, path: Path, *, optional: bool = False) -> list[Any] | None:
    have = sum(key in line for line in lines)
    if have == 0:
        return None
    if have < len(lines) and not optional:
        raise ShapeError(f"{path}: expected {key!r} in every line or in none, got it in {have} of {len(lines)}")
    return [line.get(key) for line in lines]
