"""The command line's checks: verify and repair, on whole indexes and on damaged ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.cli import main

DOCUMENTS = 600  # two segments of 5 MiB, so that one can be lost and the other stays


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "index"
    random = np.random.default_rng(11)
    with MetaIndex(path=path) as index:
        index.add(random.standard_normal((DOCUMENTS // 2, 64, 128), dtype=np.float32) for _ in range(2))
    return path


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "index"))


@pytest.fixture
def damaged(index: Path) -> Path:
    """One byte of the first segment's largest level is another one."""
    file = max((index / "segments" / "00000000").glob("level-*"), key=lambda one: one.stat().st_size)
    with file.open("r+b") as opened:
        opened.seek(-100, 2)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 1]))
    return index


def _found(capsys: pytest.CaptureFixture[str]) -> dict:
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict = json.loads(printed.out)
    return found


def _content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_whole_index_verifies_with_exit_code_0(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(index), "--json", "--sample", "7"]) == 0
    found = _found(capsys)
    assert found["ok"]
    assert (found["documents"], found["segments"], found["sampled"], found["damage"]) == (DOCUMENTS, 2, 7, [])
    assert found["nbytes"] > DOCUMENTS * 64 * 128 * 2
    assert main(["verify", str(index)]) == 0
    assert str(DOCUMENTS) in capsys.readouterr().out


def test_damage_is_named_with_exit_code_1(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(damaged), "--json"]) == 1
    found = _found(capsys)
    assert not found["ok"]
    (damage,) = found["damage"]
    assert damage["file"].endswith("safetensors")
    assert "00000000" in damage["file"]
    assert damage["documents"] == DOCUMENTS // 2
    assert main(["verify", str(damaged), "--sample", "0"]) == 1
    assert damage["file"] in capsys.readouterr().out


def test_repair_finds_nothing_in_a_whole_index(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _content(index)
    assert main(["repair", str(index), "--json"]) == 0
    found = _found(capsys)
    assert (found["damage"], found["lost"], found["kept"]) == ([], [], DOCUMENTS)
    assert main(["repair", str(index), "--apply"]) == 0
    with MetaIndex.open(index) as opened:
        assert len(opened) == DOCUMENTS
    assert {name: data for name, data in _content(index).items() if "safetensors" in name} == {
        name: data for name, data in before.items() if "safetensors" in name
    }


def test_repair_says_what_it_would_drop_and_changes_nothing_without_apply(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _content(damaged)
    assert main(["repair", str(damaged), "--json"]) == 1
    found = _found(capsys)
    assert (found["kept"], found["possible"], found["applied"]) == (DOCUMENTS // 2, True, False)
    assert sorted(found["lost"]) == list(range(DOCUMENTS // 2))
    assert _content(damaged) == before
    assert main(["repair", str(damaged)]) == 1
    assert found["damage"][0]["file"] in capsys.readouterr().out


def test_repair_with_apply_leaves_an_index_that_verifies(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repair", str(damaged), "--apply", "--json"]) == 0
    found = _found(capsys)
    assert found["applied"]
    assert main(["verify", str(damaged), "--json"]) == 0
    assert _found(capsys)["documents"] == found["kept"] == DOCUMENTS // 2


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_what_is_no_index_is_one_line_and_exit_code_1(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        assert main([command, str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("metaindex: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "a", "--sample", "-1"], "argument --sample: expected an integer of at least 0"),
        (["verify", "a", "--sample", "x"], "argument --sample: expected an integer of at least 0"),
        (["verify"], "required: index"),
        (["repair"], "required: index"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_verify_tells_json_of_an_index_that_cant_be_opened(tmp_path, capsys):
    with MetaIndex(path=tmp_path / "index") as index:
        index.add(np.ones((2, 2, 4)))
    with open(tmp_path / "index" / "segments" / "00000000" / "level-0.safetensors", "ab") as file:
        file.write(b"x")
    assert main(["verify", str(tmp_path / "index"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"]
    assert "level-0" in told["damage"][0]["what"]
