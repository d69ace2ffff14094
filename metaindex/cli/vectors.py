"""Vector files: .npy, .npz or .safetensors, with JSON lines of id, metadata and length beside them.

``docs.npy`` holds [N, T, d]; ``docs.npz`` and ``docs.safetensors`` hold it as ``vectors``. ``docs.jsonl``, if it is there, has
one object for each document: ``{"id": 7, "metadata": {...}, "length": 42}``, every key optional but the same in all lines.
Empty lines don't count. A file of queries is the same with [B, R, d], and may be one query [R, d].
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.cli.stored import READERS
from metaindex.errors import ShapeError

_LINE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class VectorFile:
    """``vectors`` [N, T, d], of which slices are read, and what the JSON lines say of each document."""

    vectors: Any
    lengths: NDArray[np.int64] | None
    ids: list[Any] | None
    metadata: Iterable[dict[str, Any] | None] | None

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
    if len(vectors.shape) != 3:
        fix = "; add a batch axis" if len(vectors.shape) == 2 else ""
        raise ShapeError(f"{path}: expected [N, T, d], got {vectors.shape}{fix}")
    return _with_lines(vectors, Path(path).with_suffix(".jsonl"))


def read_queries(path: str) -> Any:
    """Read the queries [B, R, d], or one query [R, d], at ``path``, cut to the lengths in the JSON lines beside them.

    Returns:
        What ``MetaIndex.search`` takes: an array [B, R, d] or a list of [r_i, d]. Raises as ``read``.
    """
    vectors = np.asarray(_load(Path(path)))
    if vectors.ndim not in (2, 3):
        raise ShapeError(f"{path}: expected [B, R, d] or one query [R, d], got {vectors.shape}")
    return _with_lines(vectors if vectors.ndim == 3 else vectors[None], Path(path).with_suffix(".jsonl")).queries()


def _with_lines(vectors: Any, path: Path) -> VectorFile:
    if not path.exists():
        return VectorFile(vectors, None, None, None)
    ids: list[Any] = []
    lengths = array("q")
    lines, described = 0, False
    for number, line in _lines(path):
        lines += 1
        if "id" in line:
            ids.append(line["id"])
        if "length" in line:
            lengths.append(_length(line["length"], vectors.shape[1], path, number))
        described = described or "metadata" in line
    if lines != len(vectors):
        raise ShapeError(f"{path}: expected {len(vectors)} lines, one for each document, got {lines}")
    return VectorFile(
        vectors,
        np.array(lengths, np.int64) if _in_all("length", len(lengths), lines, path) else None,
        ids if _in_all("id", len(ids), lines, path) else None,
        _Metadata(path) if described else None,
    )


def _load(path: Path) -> Any:
    if path.suffix not in READERS:
        raise ValueError(f"{path}: expected .npy, .npz or .safetensors")
    path.open("rb").close()  # what keeps a file from being opened is told best by Python; the readers leave out its name
    try:
        return READERS[path.suffix](path)
    except MemoryError:
        raise
    except Exception as error:  # for a damaged file the readers raise errors of a dozen classes
        raise ValueError(f"{path}: can't be read as {path.suffix}: {str(error) or type(error).__name__}") from error


@dataclass(frozen=True, eq=False)
class _Metadata:
    """The metadata of all lines, read anew line by line whenever they are asked for."""

    path: Path

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        return (line.get("metadata") for _, line in _lines(self.path))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects and the numbers of their lines, from 1."""
    with path.open("rb") as file:
        for number in count(1):
            text = file.readline(_LINE_BYTES + 1)
            if not text:
                return
            if len(text) > _LINE_BYTES:
                raise ValueError(f"{path}:{number}: expected a line of at most {_LINE_BYTES:,} bytes")
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: expected a JSON object: {error}") from None
            if not isinstance(line, dict):
                raise ValueError(f"{path}:{number}: expected a JSON object, got {type(line).__name__}")
            yield number, line


def _length(value: Any, tokens: int, path: Path, number: int) -> int:
    if type(value) is not int or not 1 <= value <= tokens:
        raise ValueError(f"{path}:{number}: expected a length from 1 to {tokens}, got {value!r}")
    return value


def _in_all(key: str, have: int, lines: int, path: Path) -> bool:
    if 0 < have < lines:
        raise ShapeError(f"{path}: expected {key!r} in every line or in none, got it in {have} of {lines}")
    return have > 0
