"""Arrays in .npy, .npz and .safetensors files, of which slices are read: none is ever in memory as a whole, and none is mapped,
because a map keeps in memory what was read already.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 1 << 20
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Array(Protocol):
    """Slices of the first axis can be read, fastest in rising order; ``numpy.asarray`` reads all."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> NDArray: ...


class _Sliced(ABC):
    """What both kinds of stored arrays share. ``bfloat16`` numbers come as float32, of which they are the upper halves."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...], *, bfloat16: bool = False) -> None:
        self._path, self._offset, self._stored, self.shape, self._bfloat16 = path, offset, dtype, shape, bfloat16

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        start, stop, _ = rows.indices(len(self))
        return self._read(start, (max(0, stop - start), *self.shape[1:]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        found = self._read(0, self.shape)
        return found if dtype is None else found.astype(dtype, copy=False)

    def _read(self, first: int, shape: tuple[int, ...]) -> NDArray:
        found = np.empty(shape, self._stored)
        if found.size:
            self._fill(first * prod(self.shape[1:]) * self._stored.itemsize, found.reshape(-1).view(np.uint8))
        if not self._bfloat16:
            return found
        wide = found.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)

    @abstractmethod
    def _fill(self, start: int, out: NDArray[np.uint8]) -> None:
        """Read the bytes of the array from ``start`` on into ``out``."""

    def _cut_short(self) -> ValueError:
        return ValueError(f"{self._path}: it was cut short while it was read")


class _Stored(_Sliced):
    """An array that lies in a file as it is in memory, from ``offset`` on."""

    def _fill(self, start: int, out: NDArray[np.uint8]) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offset + start)
            view = out.data
            while view:
                count = file.readinto(view)
                if not count:
                    raise self._cut_short()
                view = view[count:]


class _Zipped(_Sliced):
    """An array in a member of a zip archive, compressed or not: read front to back, and from the front again to go back."""

    def __init__(self, path: Path, member: str, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        super().__init__(path, offset, dtype, shape)
        self._archive, self._member = zipfile.ZipFile(path), member
        self._stream: IO[bytes] = self._archive.open(member)
        self._at = 0

    def _fill(self, start: int, out: NDArray[np.uint8]) -> None:
        try:
            if self._offset + start < self._at:
                self._stream.close()
                self._stream, self._at = self._archive.open(self._member), 0
            while self._at < self._offset + start:
                self._at += len(self._some(self._offset + start - self._at))
            done = 0
            while done < len(out):
                piece = self._some(len(out) - done)
                out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                done += len(piece)
                self._at += len(piece)
        except (OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"{self._path}: can't be read as .npz: {error}") from None

    def _some(self, most: int) -> bytes:
        piece = self._stream.read(min(most, _PIECE_BYTES))
        if not piece:
            raise self._cut_short()
        return piece


def _npy(path: Path) -> Array | NDArray:
    array = np.lib.format.open_memmap(path, mode="r")
    if not array.flags.c_contiguous or not array.size:
        return array
    return _Stored(path, array.offset, array.dtype, array.shape)


def _npz(path: Path) -> Array | NDArray:
    # Without this numpy takes what is no archive for a pickle.
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive, or a truncated one")
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        name = _only("vectors", list(members))
        member = archive.getinfo(members[name])
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
            if header is None:
                raise ValueError(f"expected an array of version 1.0 or 2.0 of the format, got {version[0]}.{version[1]}")
            shape, fortran, dtype = header(stream)
            offset = stream.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    if offset + prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{dtype} {shape} don't fit the {member.file_size} bytes of {member.filename!r}")
    if fortran and len(shape) > 1:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    return _Zipped(path, member.filename, offset, dtype, shape)


def _safetensors(path: Path) -> Array | NDArray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:  # checks the whole header against the size of the file
        name = _only("vectors", list(tensors.keys()))
        dtype = tensors.get_slice(name).get_dtype()
        if dtype not in _DTYPES:
            return np.asarray(tensors.get_tensor(name))
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
    offset = 8 + size + entry["data_offsets"][0]
    return _Stored(path, offset, np.dtype(_DTYPES[dtype]), tuple(entry["shape"]), bfloat16=dtype == "BF16")


READERS: dict[str, Callable[[Path], Array | NDArray]] = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}


def _only(name: str, names: list[str]) -> str:
    if name in names:
        return name
    if len(names) == 1:
        return names[0]
    raise ValueError(f"expected an array named 'vectors', got {', '.join(names) or 'none'}")
