"""Every single bit and every length of a small index: what is changed is found, or changes nothing.

Each changed file is opened in a forked child, so that a crash would be seen and named.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.errors import MetaIndexError
from tests.storage.golden.make import shrink

# A scale with a flipped exponent overflows when it is decoded; without verify that is the caller's risk, and no crash.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

AT_ONCE = 4000
QUERY = np.array([[[1.0, 0.5]]], np.float32)
FILES = {
    "catalog": ["catalog.sqlite"],
    "segment": [f"segments/00000000/{name}.safetensors" for name in ("documents", "level-0", "level-1")],
    "locks": ["lock", "readers"],
}
HARMLESS, REFUSED, FOUND = range(3)


def content(index):
    documents = index.get(list(index))
    scores, ids = index.search(QUERY, 5)
    listed = [(one.id, one.tokens.tobytes(), json.dumps(one.metadata)) for one in documents]
    return listed, scores.tobytes(), ids.tolist()


@pytest.fixture
def small(tmp_path):
    root = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = root / f"metaindex-{os.getpid()}-{tmp_path.name}"
    levels = (2,) if "catalog" in tmp_path.name else (1, 2)  # files that are not changed cost time with each bit
    with MetaIndex(path=path, codec="int8", levels=levels) as index:
        tokens = [np.array([[1.0, 2.0], [3.0, -4.0]]), np.array([[0.5, 0.25]]), np.array([[2.0, 2.0]])]
        index.add(tokens, metadata=[{"a": 1}, None, None])
        index.remove([2])
    shrink(path)
    yield path
    shutil.rmtree(path)


def looked_at(path, original):
    """What becomes of a changed index. Anything but errors of this package and the system is a failure."""
    try:
        index = MetaIndex.open(path, num_threads=1)
    except (MetaIndexError, OSError):
        return REFUSED
    with index:
        try:
            found = content(index)
        except (MetaIndexError, OSError, ValueError):  # ValueError: an id that no index takes, asked for by name
            found = None
        if not index.verify(sample=0).ok:
            return FOUND
        assert found == original, "changed, and verify finds nothing"
        return HARMLESS


def in_children(path, name, changes, change, first=0):
    """How many of ``changes`` were harmless, refused and found."""
    data = (path / name).read_bytes()
    with MetaIndex.open(path, num_threads=1) as index:
        original = content(index)
    counts = np.zeros(3, int)
    with mmap.mmap(-1, 32) as shared:
        for start in range(first, changes, AT_ONCE):
            shared[:32] = bytes(32)
            child = os.fork()
            if not child:
                status = 1
                try:
                    tally = [0, 0, 0]
                    for number in range(start, min(start + AT_ONCE, changes)):
                        shared[24:32] = struct.pack("<q", number)
                        change(path / name, data, number)
                        tally[looked_at(path, original)] += 1
                        shared[:24] = struct.pack("<3q", *tally)
                    status = 0
                except BaseException as error:
                    print(f"{name}: change {number}: {error!r}", flush=True)
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            number = struct.unpack("<q", shared[24:32])[0]
            assert status == 0, f"{name}: change {number} ended the child with {status} (a low number is a signal)"
            counts += struct.unpack("<3q", shared[:24])
    (path / name).write_bytes(data)
    with MetaIndex.open(path, verify=True) as index:
        assert content(index) == original
    return counts


def flip(path, data, number):
    """Flip one bit in place, and the one before it back."""
    with open(path, "r+b", buffering=0) as file:
        for bit, flipped in ((number - 1, 0), (number, 1)):
            if bit >= 0:
                file.seek(bit // 8)
                file.write(bytes([data[bit // 8] ^ (flipped << bit % 8)]))


def cut(path, data, number):
    path.write_bytes(data[:number])


@pytest.mark.parametrize("kind", ["segment", "locks"])
def test_every_bit(small, kind):
    for name in FILES[kind]:
        bits = 8 * (small / name).stat().st_size
        harmless, refused, found = in_children(small, name, bits, flip)
        assert harmless + refused + found == bits
        print(f"{name}: {bits} bits: {refused} refused when opened, {found} found by verify, {harmless} change nothing")
        assert kind == "locks" or not harmless


@pytest.mark.parametrize("half", [0, 1])
def test_every_bit_of_the_catalog(small, half):
    middle = 4 * (small / "catalog.sqlite").stat().st_size
    harmless, refused, found = in_children(small, "catalog.sqlite", middle * (half + 1), flip, middle * half)
    assert harmless + refused + found == middle
    print(f"half {half}: {middle} bits: {refused} refused when opened, {found} found by verify, {harmless} change nothing")
    assert refused + found > middle / 6  # what pages that are not full, as those of indexes here, have left means nothing


@pytest.mark.parametrize("kind", FILES)
def test_every_length(small, kind):
    for name in FILES[kind]:
        size = (small / name).stat().st_size
        harmless, refused, found = in_children(small, name, size, cut)
        assert harmless + refused + found == size
        print(f"{name}: {size} lengths: {refused} refused when opened, {found} found by verify, {harmless} change nothing")
        if kind != "locks":
            assert not harmless


def test_a_harmful_change_fails_here(small):
    """The test of the test: a document that is changed, with all checksums right, is no harmless change."""
    with MetaIndex.open(small) as index:
        original = content(index)
    with MetaIndex.open(small, "r+") as index:
        index.upsert([np.array([[9.0, 9.0]])], [0])
    with pytest.raises(AssertionError, match="verify finds nothing"):
        looked_at(small, original)
