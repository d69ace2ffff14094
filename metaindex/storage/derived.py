"""The file of the coarse index: derived from the vectors, and so worth nothing that they are not worth.

It is no part of what a commit promises. It is not synced: what a disk lost of it, its checksum tells. The catalog names the one
file that counts, with its size and checksum, and covers that record with its own checksum: so a file of another index, of an
older state or of nobody's is never taken. A damaged or missing one is passed over, and costs time.

Nothing here looks into FAISS's bytes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.errors import CorruptIndexError
from metaindex.storage import tensors
from metaindex.storage.files import Files, Written
from metaindex.storage.tensors import Tensor

_NAME = re.compile(r"coarse-([0-9]{8,12})\.safetensors")
_LAST_NUMBER = 10**12 - 1
_KEYS = ("number", "bytes", "checksum", "documents", "last", "trained", "version")


class CoarseRecord(NamedTuple):
    """What the catalog says of the file: its ``number``, size and checksum. It holds ``documents``; ``last`` is the last one's
    place in the order of addition; ``trained``: how many there were to train on; ``version``: of the vectors in it."""

    number: int
    file: Written
    documents: int
    last: int
    trained: int
    version: int

    @property
    def name(self) -> str:
        return f"coarse-{self.number:08d}.safetensors"

    def to_json(self) -> str:
        values = (self.number, *self.file, self.documents, self.last, self.trained, self.version)
        return json.dumps(dict(zip(_KEYS, values)))

    @classmethod
    def from_json(cls, text: str | None) -> CoarseRecord | None:
        """The inverse of ``to_json``; ``None`` for what no writer writes."""
        try:
            values = json.loads(text or "")
            number, size, checksum, *counts = (values[key] for key in _KEYS)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if any(type(value) is not int or not 0 <= value < 1 << 62 for value in (number, size, checksum, *counts)):
            return None
        return None if number > _LAST_NUMBER or len(values) != len(_KEYS) else cls(number, Written(size, checksum), *counts)


class CoarseFile(NamedTuple):
    """What a file holds: ``sequence`` int64 [n], the documents at FAISS's positions, and ``data``, FAISS's own bytes."""

    sequence: NDArray[np.int64]
    data: NDArray[np.uint8]


def write(files: Files, number: int, held: CoarseFile) -> Written:
    """A new file of that number; a leftover of a killed writer gives way."""
    name = CoarseRecord(number, Written(0, 0), 0, 0, 0, 0).name
    files.remove(name)
    try:
        parts = {"sequence": Tensor("I64", held.sequence.shape, [held.sequence])}
        return tensors.write(files, name, parts | {"faiss": Tensor("U8", held.data.shape, [held.data])})
    except BaseException:
        with suppress(OSError):
            files.remove(name)
        raise


def read(files: Files, record: CoarseRecord) -> CoarseFile:
    """The whole file in memory, after its size and then its checksum were compared with the record's.

    Raises:
        CorruptIndexError: it is missing, truncated, changed, or not what the record says.
    """
    try:
        _, size = files.head(record.name, 0)
        if size != record.file.size:
            raise tensors.damaged(record.name, f"expected {record.file.size} bytes, found {size}")
        data = np.empty(size, np.uint8)
        whole = files.read_at(record.name, [(0, data.data)])
    except OSError as error:
        raise tensors.damaged(record.name, f"it can't be read ({error.strerror})") from None
    if not whole or zlib.crc32(data.data) != record.file.checksum:
        raise tensors.damaged(record.name, "its checksum is wrong")
    found = tensors.parsed(record.name, data, {"sequence": ("I64", (record.documents,)), "faiss": ("U8", (None,))})
    sequence = found["sequence"]
    if not len(sequence) or sequence[0] < 0 or np.any(sequence[1:] <= sequence[:-1]) or sequence[-1] != record.last:
        raise tensors.damaged(record.name, "its documents don't stand in the order of addition")
    return CoarseFile(sequence.copy(), found["faiss"])


def faults(files: Files, record: CoarseRecord) -> str | None:
    """What is wrong with the file, without holding it in memory."""
    try:
        if files.checksum(record.name) == record.file:
            return None
    except OSError as error:
        return f"it can't be read ({error.strerror})"
    return "its size or checksum is wrong"


def names(files: Files) -> Iterable[str]:
    """The files of coarse indexes in the folder, those that count for nothing too."""
    return [name for name in files.list() if _NAME.fullmatch(name)]


def remove_others(files: Files, record: CoarseRecord | None) -> None:
    """Remove all files but the one that counts."""
    for name in names(files):
        if record is None or name != record.name:
            files.remove(name)


def link(source: Files, target: Files, record: CoarseRecord) -> None:
    """The file in another folder as well, where the system can; a copy does without."""
    with suppress(OSError, CorruptIndexError):
        target.link(record.name, source)
