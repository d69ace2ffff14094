"""Vector files read batch by batch: the same numbers as a whole, in the same memory however large, hostile files refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from metaindex import MetaIndex
from metaindex.cli import main, vectors, write

RNG = np.random.default_rng(3)
KINDS = ["npy", "stored.npz", "deflated.npz", "safetensors", "bfloat16.safetensors"]


def _bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _save(folder: Path, kind: str, values: np.ndarray) -> Path:
    path = folder / f"docs.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind.endswith("npz"):
        (np.savez if kind == "stored.npz" else np.savez_compressed)(path, vectors=values)
    elif kind == "safetensors":
        save_file({"other": values[:1], "vectors": values}, path)
    else:
        shape = list(values.shape)
        header = json.dumps({"vectors": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 2 * values.size]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + _bfloat16(values).tobytes())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_what_was_written(tmp_path: Path, kind: str) -> None:
    values = RNG.standard_normal((10, 3, 4)).astype(np.float32)
    found = vectors.read(str(_save(tmp_path, kind, values)))
    if kind.startswith("bfloat16"):
        values = (_bfloat16(values).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(np.concatenate(list(found.batches(3))), values)
    for rows in (slice(7, 9), slice(2, 5), slice(4, 4), slice(0, 100)):  # forward, back, nothing, all
        np.testing.assert_array_equal(found.vectors[rows], values[rows])
    np.testing.assert_array_equal(np.asarray(found.vectors), values)
    np.testing.assert_array_equal(np.asarray(found.vectors, np.float64), values)


_BUILD_PEAK = """
import sys
from metaindex.cli import main, write
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
write._BATCH_NUMBERS, write._BATCH_DOCUMENTS = 1 << 18, 256
small, large, out = sys.argv[1:]
assert main(["build", out + "-small", small]) == 0
before = peak()
assert main(["build", out, large]) == 0
print(peak() - before)
"""


def _grown(folder: Path, small: Path, large: Path) -> int:
    """By how many bytes a process grows that built an index of a small file when it builds one of a large file."""
    command = [sys.executable, "-c", _BUILD_PEAK, str(small), str(large), str(folder / "index")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_build_takes_the_same_memory_for_a_larger_file(tmp_path: Path, kind: str) -> None:
    values = np.repeat(RNG.standard_normal((20 << 10, 1), dtype=np.float32), 1024, axis=1).reshape(-1, 16, 64)  # 80 MiB
    (tmp_path / "small").mkdir()
    small, large = _save(tmp_path / "small", kind, values[: 2 << 10]), _save(tmp_path, kind, values)
    assert _grown(tmp_path, small, large) < 20 << 20


def test_metadata_is_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "docs.npy", np.ones((3000, 1, 4), np.float32))
    text = "x" * (16 << 10)
    with (tmp_path / "docs.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": n, "metadata": {"text": text + str(n)}}) + "\n" for n in range(3000))
    assert (tmp_path / "docs.jsonl").stat().st_size > 46 << 20
    monkeypatch.setattr(write, "_BATCH_DOCUMENTS", 256)
    tracemalloc.start()  # sees what Python holds; SQLite holds what a commit writes to the catalog until it ends
    try:
        assert main(["build", str(tmp_path / "index"), str(tmp_path / "docs.npy")]) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
    with MetaIndex.open(tmp_path / "index") as index:
        (document,) = index.get([2999])
        assert document.metadata == {"text": text + "2999"}


def _safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _tensor(shape: object, offsets: object, dtype: str = "F32") -> bytes:
    return json.dumps({"vectors": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


HOSTILE = {
    "header larger than the file": _safetensors(b"{}", length=1 << 20),
    "header of all numbers": _safetensors(b"{}", length=(1 << 64) - 1),
    "no header": b"\x08\0\0",
    "no JSON": _safetensors(b"{" * 64),
    "data cut": _safetensors(_tensor([2, 2, 2], [0, 32]), b"\0" * 31),
    "offsets past the end": _safetensors(_tensor([1 << 40, 2, 2], [0, 1 << 44]), b"\0" * 64),
    "shape that overflows": _safetensors(_tensor([1 << 33, 1 << 33, 4], [0, 16]), b"\0" * 16),
    "negative shape": _safetensors(_tensor([-1, 2, 2], [0, 16]), b"\0" * 16),
    "half of bfloat16": _safetensors(_tensor([2, 2, 2], [0, 8], "BF16"), b"\0" * 8),
}


def _refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["build", str(path.with_name("index")), str(path)]) == 1
    error = capsys.readouterr().err
    assert str(path.with_suffix("")) in error
    assert error.count("\n") == 1
    assert not path.with_name("index").exists()
    return error


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_safetensors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    path = tmp_path / "docs.safetensors"
    path.write_bytes(HOSTILE[what])
    assert "can't be read as .safetensors" in _refused(path, capsys)


def _npy(shape: tuple[int, ...], data: bytes, dtype: str = "<f4") -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "member", [_npy((1 << 40, 1 << 40, 8), b"\0" * 64), _npy((2, 2, 2), b"\0" * 31), _npy((2, 2, 2), b"\0" * 64, "|O"), b"junk"]
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_hostile_npz_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], member: bytes, compression: int) -> None:
    path = tmp_path / "docs.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("vectors.npy", member)
    assert "can't be read as .npz" in _refused(path, capsys)


@pytest.mark.parametrize("kind", ["stored.npz", "deflated.npz"])
def test_a_changed_byte_in_an_archive_fails_its_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = _save(tmp_path, kind, RNG.standard_normal((200, 4, 16)).astype(np.float32))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "can't be read as .npz" in _refused(path, capsys)


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_a_file_cut_short_after_it_was_opened(tmp_path: Path, kind: str) -> None:
    path = _save(tmp_path, kind, RNG.standard_normal((20, 4, 16)).astype(np.float32))
    source = vectors.read(str(path))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)
    with pytest.raises(ValueError, match="cut short while it was read"):
        list(source.batches(7))


def test_an_endless_line_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_LINE_BYTES", 1000)
    np.save(tmp_path / "docs.npy", np.ones((1, 2, 4), np.float32))
    (tmp_path / "docs.jsonl").write_text('{"metadata": {"text": "' + "x" * 1000 + '"}}\n')
    assert "docs.jsonl:1: expected a line of at most 1,000 bytes" in _refused(tmp_path / "docs.npy", capsys)
