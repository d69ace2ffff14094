"""Writing one file: what it holds, its checksum, and the early start of writing to the disk, which is only a hint."""

import ctypes
import zlib

import numpy as np
import pytest

from metaindex.storage import files as module
from metaindex.storage.files import Files, Written

NAME = "lock"


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def _chunks() -> list:
    """Sizes around those of blocks and early starts, and chunks that are no multiple of either."""
    random = np.random.default_rng(8)
    sizes = (0, 1, module._WRITE_BYTES - 1, module._WRITE_BYTES + 1, 3 * module._WRITEBACK_BYTES + 5, 7)
    return [b"first", *(random.integers(0, 256, size, dtype=np.uint8) for size in sizes), b"last"]


def _content(chunks: list) -> bytes:
    return b"".join(bytes(chunk) for chunk in chunks)


def test_a_file_holds_its_chunks_and_their_checksum(files, tmp_path):
    chunks = _chunks()
    written = files.write(NAME, chunks)
    assert (tmp_path / NAME).read_bytes() == _content(chunks)
    assert written == Written(len(_content(chunks)), zlib.crc32(_content(chunks))) == files.checksum(NAME)


@pytest.mark.skipif(module._sync_file_range is None, reason="this system has no sync_file_range")
def test_the_disk_is_told_of_each_part_of_a_large_file_once_and_of_small_ones_never(files, monkeypatch):
    told = []
    monkeypatch.setattr(module, "_sync_file_range", lambda fd, offset, count, flags: told.append((offset, count, flags)))
    size = len(_content(_chunks()))
    files.write(NAME, _chunks())
    assert [offset for offset, _, _ in told] == [sum(count for _, count, _ in told[:n]) for n in range(len(told))]
    assert size - sum(count for _, count, _ in told) < module._WRITEBACK_BYTES
    assert {flags for _, _, flags in told} == {2}  # SYNC_FILE_RANGE_WRITE alone neither waits nor takes errors away from fsync
    told.clear()
    files.remove(NAME)
    files.write(NAME, [b"x" * (module._WRITEBACK_BYTES - 1)])
    assert told == []


@pytest.mark.parametrize("hint", [None, lambda *_: ctypes.set_errno(28) or -1], ids=["missing", "failing"])
def test_a_hint_that_is_missing_or_fails_changes_nothing(files, tmp_path, monkeypatch, hint):
    monkeypatch.setattr(module, "_sync_file_range", hint)
    written = files.write(NAME, _chunks())
    assert written.checksum == zlib.crc32((tmp_path / NAME).read_bytes()) == zlib.crc32(_content(_chunks()))
    files.sync(NAME)
