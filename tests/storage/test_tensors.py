"""safetensors files: ours are read by the safetensors library, and hostile ones are refused before they are mapped."""

from __future__ import annotations

import json
import os
import struct
from itertools import pairwise

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from metaindex.codecs import codec
from metaindex.errors import CorruptIndexError
from metaindex.storage import tensors
from metaindex.storage.files import Files
from metaindex.storage.store import Store
from metaindex.storage.tensors import Tensor
from tests.storage.support import add, ragged, schema, vectors

NAME = "segments/00000000/level-0.safetensors"
EXPECTED = {"codes": ("F16", (2, 3)), "scales": ("F32", (2,))}


@pytest.fixture
def files(tmp_path):
    os.makedirs(tmp_path / "segments" / "00000000")
    return Files(tmp_path)


def place(files, header, data=b"", length=None):
    """A file with this header; returns its size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    content = struct.pack("<Q", len(text) if length is None else length) + text + data
    with open(files.path(NAME), "wb") as file:
        file.write(content)
    return len(content)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("name", ["float32", "float16", "int8"])
def test_the_safetensors_library_reads_ours(tmp_path, name):
    store = Store.create(schema(codec=name), tmp_path / "index")
    add(store, vectors(7), ragged(7), [f"id {number}" for number in range(7)])
    folder = tmp_path / "index" / "segments" / "00000000"
    for number, level in enumerate(store.snapshot.segments[0].levels):
        found = load_file(folder / f"level-{number}.safetensors")
        np.testing.assert_array_equal(found["codes"], level.parts.codes)
        if codec(name).scaled:
            np.testing.assert_array_equal(found["scales"], level.parts.scales)
    documents = load_file(folder / "documents.safetensors")
    offsets, text = documents["id_offsets"], documents["id_bytes"].tobytes()
    assert [text[a:b].decode() for a, b in pairwise(offsets)] == store.snapshot.segments[0].ids.tolist()
    np.testing.assert_array_equal(documents["lengths"], store.snapshot.segments[0].lengths)
    np.testing.assert_array_equal(documents["sequence"], store.snapshot.segments[0].sequence)


def test_bfloat16_is_named_as_such(tmp_path):
    store = Store.create(schema(codec="bfloat16"), tmp_path / "index")
    add(store, vectors(2))
    with safe_open(tmp_path / "index" / NAME, "numpy") as file:
        assert file.get_slice("codes").get_dtype() == "BF16"


def test_tensors_start_at_multiples_of_64_bytes(files):
    values = {"codes": np.arange(6, dtype=np.float16).reshape(2, 3), "scales": np.arange(2, dtype=np.float32)}
    layout = {key: Tensor("F16" if key == "codes" else "F32", array.shape, [array]) for key, array in values.items()}
    size = tensors.write(files, NAME, layout).size
    extents = tensors.check(files, NAME, EXPECTED, size)
    assert all(extent.begin % 64 == 0 for extent in extents.values())
    for key, array in tensors.load(files, NAME, EXPECTED, size).items():
        np.testing.assert_array_equal(array, values[key])
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0


GOOD = {"codes": entry("F16", [2, 3], 0, 12), "pad": 0, "scales": entry("F32", [2], 64, 72)}
HUGE = 1 << 62


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"{", b""),
        (b"[]", b""),
        (b"null", b""),
        (b"\xff\xfe", b""),
        (b"[" * 50_000, b""),
        (b'{"codes": ' + b"9" * 5000 + b"}", b""),
        (b'{"codes":{},"codes":{}}', b""),
        ({}, b""),
        ({"codes": 1}, b""),
        ({"codes": {}}, b""),
        ({"codes": {**entry("F16", [2, 3], 0, 12), "more": 1}}, bytes(12)),
        ({"codes": entry("F16", [2, 3], 0, 12)}, bytes(12)),
        ({"codes": entry("F16", [2, 3], 0, 12), "scales": entry("F32", [2], 12, 20)}, bytes(20)),
        ({"codes": entry("F16", [2, 3], 0, 12), "scales": entry("F32", [2], 64, 72)}, bytes(72)),
        ({"codes": entry("F16", [2, 3], 0, 12), "scales": entry("F32", [2], 0, 8)}, bytes(12)),
        (
            {"codes": entry("F16", [2, 3], 0, 12), "padding.0": entry("U8", [52], 12, 64), "scales": entry("F32", [2], 64, 72)},
            bytes(73),
        ),
        (
            {"codes": entry("F16", [2, 3], 0, 12), "padding.0": entry("U8", [52], 12, 64), "scales": entry("F32", [2], 64, 72)},
            bytes(71),
        ),
        (
            {"codes": entry("F16", [3, 2], 0, 12), "padding.0": entry("U8", [52], 12, 64), "scales": entry("F32", [2], 64, 72)},
            bytes(72),
        ),
        (
            {
                "codes": entry("BF16", [2, 3], 0, 12),
                "padding.0": entry("U8", [52], 12, 64),
                "scales": entry("F32", [2], 64, 72),
            },
            bytes(72),
        ),
        (
            {"codes": entry("F16", [2, 3], 0, 12), "other": entry("U8", [52], 12, 64), "scales": entry("F32", [2], 64, 72)},
            bytes(72),
        ),
        ({"codes": entry("F16", [2, 3], 12, 24), "scales": entry("F32", [2], 24, 32)}, bytes(32)),
        ({"codes": entry("F16", [HUGE, 4, 2], 0, 0)}, b""),
        ({"codes": entry("F16", [HUGE, HUGE], 0, 12)}, bytes(12)),
        ({"codes": entry("F16", [1 << 63, 2], 0, 0)}, b""),
        ({"codes": entry("F16", [-2, -3], 0, 12)}, bytes(12)),
        ({"codes": entry("F16", [2.0, 3], 0, 12)}, bytes(12)),
        ({"codes": entry("F16", [True, 6], 0, 12)}, bytes(12)),
        ({"codes": entry("F16", [1] * 9, 0, 2)}, bytes(2)),
        ({"codes": entry("F16", "23", 0, 12)}, bytes(12)),
        ({"codes": entry("object", [2, 3], 0, 12)}, bytes(12)),
        ({"codes": entry(["F16"], [2, 3], 0, 12)}, bytes(12)),
        ({"codes": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0]}}, bytes(12)),
        ({"codes": {"dtype": "F16", "shape": [2, 3], "data_offsets": [12, 0]}}, bytes(12)),
        ({"codes": {"dtype": "F16", "shape": [2, 3], "data_offsets": None}}, bytes(12)),
    ],
)
def test_hostile_headers(files, header, data):
    size = place(files, header, data)
    with pytest.raises(CorruptIndexError, match="level-0"):
        tensors.load(files, NAME, EXPECTED, size)
    assert not files.mapped, "nothing is mapped before the header is known to be good"


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_hostile_header_lengths(files, length):
    size = place(files, {"codes": entry("F16", [2, 3], 0, 12)}, bytes(12), length)
    with pytest.raises(CorruptIndexError):
        tensors.load(files, NAME, EXPECTED, size)


@pytest.mark.parametrize("keep", range(0, 72, 7))
def test_every_truncation_is_found(files, keep):
    layout = {
        "codes": Tensor("F16", (2, 3), [np.zeros((2, 3), np.float16)]),
        "scales": Tensor("F32", (2,), [np.zeros(2, np.float32)]),
    }
    size = tensors.write(files, NAME, layout).size
    os.truncate(files.path(NAME), keep)
    for said in (size, keep):
        with pytest.raises(CorruptIndexError):
            tensors.check(files, NAME, EXPECTED, said)


def test_a_whole_file_of_another_size_is_refused(files):
    header = {"codes": entry("F16", [2, 3], 0, 12)}
    expected = {"codes": EXPECTED["codes"]}
    size = place(files, header, bytes(12))
    tensors.check(files, NAME, expected, size)
    assert place(files, json.dumps(header).encode() + b" " * 64, bytes(12)) == size + 64
    tensors.check(files, NAME, expected, size + 64)
    with pytest.raises(CorruptIndexError, match=f"expected {size} bytes, found {size + 64}"):
        tensors.check(files, NAME, expected, size)


@pytest.mark.parametrize(
    "name",
    ["../x", "segments/../x", "/etc/passwd", "segments/1", "tmp/00000001/x", "segments//", "", "lock\n", "catalog.sqlite\0"],
)
def test_names_that_are_not_ours_are_refused(files, name):
    for operation in (files.map, files.checksum, files.remove, files.make_folder):
        with pytest.raises(ValueError, match="no name of a file"):
            operation(name)


def test_links_are_not_followed(tmp_path, files):
    (tmp_path / "secret").write_bytes(b"x" * 100)
    os.symlink(tmp_path / "secret", files.path(NAME))
    with pytest.raises(OSError, match="symbolic links"):
        files.map(NAME)
    os.symlink(tmp_path / "segments" / "00000000", tmp_path / "segments" / "00000001")
    with pytest.raises(OSError, match="Not a directory"):
        files.head("segments/00000001/documents.safetensors", 8)
    files.remove("segments/00000001")
    files.remove("segments/00000000")
    assert (tmp_path / "secret").exists()
    assert not (tmp_path / "segments" / "00000000").exists()


def test_a_named_pipe_does_not_hang(files):
    os.mkfifo(files.path(NAME))
    with pytest.raises(CorruptIndexError):
        tensors.check(files, NAME, EXPECTED, 100)
