"""The command line: build, search, explain, info, estimate, doctor."""

import json

import numpy as np
import pytest

from metaindex.cli import main

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((30, 8, 12)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "docs.npy", VECTORS)
    np.save(tmp_path / "queries.npy", VECTORS[:3, :4])
    return tmp_path


@pytest.fixture
def index(files, capsys):
    assert main(["build", str(files / "index"), str(files / "docs.npy"), "--codec", "int8"]) == 0
    capsys.readouterr()
    return str(files / "index")


def test_build_and_search(files, index, capsys):
    assert main(["search", index, str(files / "queries.npy"), "-k", "2", "--budget", "4,8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [hits[0]["id"] for hits in found["hits"]] == [0, 1, 2]
    assert found["exact"]
    assert found["stages"][0]["rows"] == 90
    assert main(["search", index, str(files / "queries.npy"), "--plan", "(1,1)>20 (*,*)"]) == 0
    assert "approximate" in capsys.readouterr().out


def test_ids_metadata_and_lengths_come_from_json_lines(files, capsys):
    lines = [{"id": f"doc {n}", "metadata": {"n": n}, "length": 1 + n % 8} for n in range(30)]
    (files / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["build", str(files / "text"), str(files / "docs.npy")]) == 0
    assert "30 documents" in capsys.readouterr().out
    assert main(["explain", str(files / "text"), str(files / "queries.npy"), "doc 9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["id"] == "doc 9"
    assert max(found["tokens"]) <= 1
    (files / "docs.jsonl").write_text("{}\n")
    assert main(["build", str(files / "other"), str(files / "docs.npy")]) == 1
    assert "expected 30 lines" in capsys.readouterr().err


def test_npz_and_safetensors(files, capsys):
    from safetensors.numpy import save_file

    np.savez(files / "a.npz", vectors=VECTORS)
    save_file({"vectors": VECTORS}, files / "b.safetensors")
    for name in ("a.npz", "b.safetensors"):
        assert main(["build", str(files / name.replace(".", "-")), str(files / name)]) == 0
        assert "30 documents" in capsys.readouterr().out


def test_explain_info_estimate(files, index, capsys):
    assert main(["explain", index, str(files / "queries.npy"), "7", "--query", "1", "--budget", "2,8"]) == 0
    assert "chose document token" in capsys.readouterr().out
    assert main(["info", index]) == 0
    assert "30 documents" in capsys.readouterr().out
    assert main(["info", index, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"]["codec"] == "int8"
    assert main(["estimate", "1000", "64", "128", "--codec", "int8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vectors"] == 1000 * 64 * 132
    assert main(["estimate", "1000", "64", "128"]) == 0
    assert "total" in capsys.readouterr().out


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["scorers"]["reference, int8"].startswith("yes")
    assert main(["doctor"]) == 0
    assert "instruction sets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "nowhere", "queries.npy"], "nowhere"),
        (["build", "index", "missing.npy"], "missing.npy"),
        (["build", "index", "docs.txt"], "expected .npy, .npz or .safetensors"),
        (["estimate", "10", "0", "5"], "doc_tokens: expected at least 1"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("queries.npy", VECTORS[0])
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("metaindex: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["search"], ["build", "a", "b", "--codec", "float8"], ["nonsense"], ["search", "a", "b", "--budget", "x"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
