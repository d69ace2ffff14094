"""The command line: build, search, explain, info, estimate, doctor."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.cli import main, vectors
from metaindex.cli.output import json_text

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


def test_why_not(files, index, capsys):
    asked = [index, str(files / "queries.npy"), "7", "--query", "1", "-k", "3", "--plan", "(1,1)>4 (*,*)"]
    assert main(["why-not", *asked]) == 0
    told = capsys.readouterr().out
    assert "document 7" in told
    assert "exact" in told
    assert main(["why-not", *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with MetaIndex.open(index) as opened:
        expected = opened.why_not(VECTORS[1, :4], 7, "(1,1)>4 (*,*)", 3)
    assert found["verdict"] == expected.verdict
    assert found["exact"]["rank"] == expected.exact.rank
    assert [stage["rank"] for stage in found["stages"]] == [stage.rank for stage in expected.stages]
    assert main(["why-not", index, str(files / "queries.npy"), "77"]) == 0
    assert "is unknown" in capsys.readouterr().out
    assert main(["why-not", index, str(files / "queries.npy"), "7", "--query", "9"]) == 1
    assert "--query: expected less than 3" in capsys.readouterr().err


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
        (["build", "index", "queries.npy"], "queries.npy: expected [N, T, d], got (8, 12); add a batch axis"),
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
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["nonsense"], "invalid choice"),
        (["search"], "required: index, queries"),
        (["search", "a", "b", "-k", "0"], "argument -k: expected an integer of at least 1, got 0"),
        (["search", "a", "b", "-k", "x"], "argument -k: expected an integer of at least 1, got 'x'"),
        (["search", "a", "b", "-k", str(10**30)], "argument -k: expected an integer of at most 2**63 - 1"),
        (["search", "a", "b", "--budget", "0"], "argument --budget: expected r_q,r_c or one number, each at least 1"),
        (["search", "a", "b", "--budget", "a"], "argument --budget: expected r_q,r_c or one number, each at least 1"),
        (["search", "a", "b", "--budget", "1,2,3"], "argument --budget: expected r_q,r_c or one number, got 3 numbers"),
        (["search", "a", "b", "--plan", "(1,1"], "argument --plan: plan: can't read"),
        (["search", "a", "b", "--plan", "(1,1)", "--budget", "4"], "give it without --budget"),
        (["search", "a", "b", "--plan", "(1,1)", "--candidates", "40"], "give it without --budget"),
        (["search", "a", "b", "--candidates", "5"], "--candidates: expected at least k = 10, got 5"),
        (["why-not", "a", "b", "7", "--plan", "(1,1)", "--budget", "4"], "give it without --budget"),
        (["explain", "a", "b", "7", "--query", "-1"], "argument --query: expected an integer of at least 0"),
        (["build", "a", "b", "--codec", "float8"], "argument --codec: expected one of float32"),
        (["build", "a", "b", "--levels", "1,x"], "argument --levels: expected level edges such as 1,4,16,64, got '1,x'"),
        (["build", "a", "b", "--levels", "4,2"], "argument --levels: levels: expected rising edges"),
        (["estimate", "10", "0", "5"], "argument doc_tokens: expected an integer of at least 1, got 0"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "lines"),
    [
        (VECTORS.astype(np.int64), None),
        (np.where(np.arange(12) == 3, np.float32(np.nan), VECTORS), None),
        (VECTORS, [{"id": 0.5 + n} for n in range(30)]),
    ],
    ids=["integers", "nan", "float ids"],
)
def test_a_build_that_fails_leaves_nothing_behind(files, wrong, lines, capsys):
    np.save(files / "docs.npy", wrong)
    if lines:
        (files / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    before = set(files.iterdir())
    build = ["build", str(files / "index"), str(files / "docs.npy")]
    assert main(build) == 1
    assert set(files.iterdir()) == before
    np.save(files / "docs.npy", VECTORS)
    (files / "docs.jsonl").unlink(missing_ok=True)
    assert main(build) == 0


def test_a_build_leaves_alone_what_stood_there(files, index, capsys):
    np.save(files / "docs.npy", VECTORS.astype(np.int64))
    assert main(["build", index, str(files / "docs.npy")]) == 1
    assert "exists" in capsys.readouterr().err
    with MetaIndex.open(index) as opened:
        assert len(opened) == 30


def test_json_never_holds_infinity(files, index, capsys, monkeypatch):
    with pytest.raises(ValueError, match="leave out --json"):
        json_text([float("nan")])
    monkeypatch.setattr("metaindex.result.SearchResult.to_list", lambda self: [[{"id": 0, "score": float("inf")}]])
    assert main(["search", index, str(files / "queries.npy"), "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "JSON" in printed.err


def test_info_is_text_for_people(index, capsys):
    assert main(["info", index]) == 0
    shown = capsys.readouterr().out
    assert "{" not in shown
    # 30 documents, one token of 12 codes and one scale of 4 bytes.
    assert "tokens 0 to 0 480 bytes on disk, int8, 30 documents" in " ".join(shown.split())
    assert "catalog" in shown


def test_an_id_of_the_wrong_kind_names_what_was_expected(files, index, capsys):
    assert main(["explain", index, str(files / "queries.npy"), "abc"]) == 1
    assert "id: expected an integer, which all ids of this index are, got 'abc'" in capsys.readouterr().err


def test_empty_lines_are_no_documents(files, capsys):
    lines = [json.dumps({"id": f"doc {n}"}) for n in range(30)]
    (files / "docs.jsonl").write_text("\n".join([*lines[:4], "", *lines[4:], "", " \n"]))
    assert main(["build", str(files / "text"), str(files / "docs.npy")]) == 0
    assert vectors.read(str(files / "docs.npy")).ids == [f"doc {n}" for n in range(30)]


def test_a_wrong_length_is_named_by_its_line(files):
    lengths = [json.dumps({"length": 1 + 8 * (n == 29)}) for n in range(30)]
    (files / "docs.jsonl").write_text("\n".join(["", *lengths]))
    with pytest.raises(ValueError, match=r"docs.jsonl:31: expected a length from 1 to 8, got 9"):
        vectors.read(str(files / "docs.npy"))


def test_bfloat16_is_read(files):
    # bfloat16 keeps the upper half of a float32 number.
    kept = (VECTORS.view(np.uint32) >> 16 << 16).view(np.float32)
    before, data = b"\0" * 6, (VECTORS.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps(
        {
            "other": {"dtype": "U8", "shape": [6], "data_offsets": [0, 6]},
            "vectors": {"dtype": "BF16", "shape": VECTORS.shape, "data_offsets": [6, 6 + len(data)]},
        }
    ).encode()
    (files / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + before + data)
    np.testing.assert_array_equal(vectors.read(str(files / "b.safetensors")).vectors, kept)


def _damage(folder: Path) -> None:
    from safetensors.numpy import save_file

    np.savez(folder / "cut.npz", vectors=VECTORS)
    save_file({"vectors": VECTORS}, folder / "cut.safetensors")
    np.save(folder / "cut.npy", VECTORS)
    np.save(folder / "rank1.npy", VECTORS[0, 0])
    np.save(folder / "rank0.npy", np.float32(1))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for suffix in ("npy", "npz", "safetensors"):
        (folder / f"empty.{suffix}").write_bytes(b"")
        (folder / f"junk.{suffix}").write_bytes(b"no vectors in here" * 20)
        whole = (folder / f"cut.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])


DAMAGED = [f"{kind}.{suffix}" for kind in ("empty", "junk", "cut") for suffix in ("npy", "npz", "safetensors")]
DAMAGED += ["rank0.npy", "rank1.npy", "objects.npy"]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(name, tmp_path, capsys):
    _damage(tmp_path)
    Path(tmp_path / name).with_suffix(".jsonl").write_text('{"length": 3}\n' * 12)
    for arguments in (["build", str(tmp_path / "index"), str(tmp_path / name)], ["search", "INDEX", str(tmp_path / name)]):
        if arguments[1] == "INDEX":
            arguments[1] = str(tmp_path / "made")
            MetaIndex(path=arguments[1]).close()
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"metaindex: {tmp_path / name}: ")
        assert error.count("\n") == 1
        assert "pickle" not in error.replace("pickled", "")


@pytest.mark.parametrize("line", [b"[" * 200_000, b"\xff\xfe\x00", b"7", b"{"], ids=["deep", "not UTF-8", "number", "cut"])
def test_a_damaged_json_line_is_one_line_that_names_it(files, line, capsys):
    (files / "docs.jsonl").write_bytes(b"{}\n" + line + b"\n")
    assert main(["build", str(files / "index"), str(files / "docs.npy")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"metaindex: {files / 'docs.jsonl'}:2: expected a JSON object")
    assert error.count("\n") == 1


@pytest.mark.parametrize("error", [ImportError("no module"), TypeError("not floats"), MemoryError("too much")])
def test_errors_of_a_command_are_one_line(error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("metaindex.index.MetaIndex.estimate", fail)
    assert main(["estimate", "1", "1", "1"]) == 1
    assert capsys.readouterr().err == f"metaindex: {error}\n"


@pytest.mark.parametrize("size", [1, 100_000], ids=["when Python exits", "while printing"])
def test_a_reader_that_went_away_is_no_error(size):
    # The command waits for its input to end, which comes after nobody is left to read its output.
    lines = (
        "import sys; from metaindex.cli import doctor, main; sys.stdin.read()",
        f"doctor.examine = lambda: {{'report': dict.fromkeys(map(str, range({size})), 'x')}}",
        "sys.exit(main(['doctor']))",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=60)
    assert error == b""
    assert process.returncode == 1
