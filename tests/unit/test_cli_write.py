"""The command line's writes: build with fields, add, remove and compact."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.cli import main, write
from metaindex.coarse import upkeep

RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((30, 8, 12)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "queries.npy", VECTORS[:3, :4])
    lines = [{"id": f"doc {n}", "metadata": {"lang": ("en", "de", "fr")[n % 3], "year": 2000 + n}} for n in range(30)]
    _save(tmp_path / "docs.npy", VECTORS, lines)
    return tmp_path


@pytest.fixture
def index(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    build = ["build", str(folder / "index"), str(folder / "docs.npy"), "--field", "lang", "--field", "year"]
    assert main(build) == 0
    capsys.readouterr()
    return str(folder / "index")


def _save(path: Path, vectors: np.ndarray, lines: list[dict]) -> str:
    np.save(path, vectors)
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def _ids(index: str) -> list:
    with MetaIndex.open(index) as opened:
        return list(opened)


def _done(capsys: pytest.CaptureFixture[str]) -> dict:
    printed = capsys.readouterr()
    assert printed.err == ""  # no bar where stderr is no terminal
    found: dict = json.loads(printed.out)
    return found


def test_build_declares_the_fields_to_index(index: str, folder: Path) -> None:
    with MetaIndex.open(index) as opened:
        assert opened.schema.fields == ("lang", "year")
    assert main(["build", str(folder / "plain"), str(folder / "docs.npy")]) == 0
    with MetaIndex.open(folder / "plain") as opened:
        assert opened.schema.fields == ()


def test_search_takes_a_filter_of_fields(index: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = '{"lang": "de", "year": {"$gte": 2020}}'
    assert main(["search", index, str(folder / "queries.npy"), "-k", "30", "--filter", wanted, "--json"]) == 0
    hits = _done(capsys)["hits"]
    assert [sorted(hit["id"] for hit in each) for each in hits] == [["doc 22", "doc 25", "doc 28"]] * 3


def test_add_appends_documents_with_their_ids_and_metadata(
    index: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"id": "x", "metadata": {"lang": "it"}, "length": 8}, {"id": "y", "length": 3}]
    more = _save(folder / "more.npy", VECTORS[:2], lines)
    assert main(["add", index, more, "--json"]) == 0
    assert _done(capsys) == {"added": 2, "replaced": 0, "documents": 32, "index": index}
    assert _ids(index)[-2:] == ["x", "y"]
    with MetaIndex.open(index) as opened:
        x, y = opened.get(["x", "y"])
        assert (x.metadata, y.metadata) == ({"lang": "it"}, None)
        assert (len(x.tokens), len(y.tokens)) == (8, 3)


def test_add_streams_in_batches_as_one_commit(
    index: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write, "_BATCH_NUMBERS", 4 * 8 * 12)
    taken: list[int] = []
    shown = write._shown

    def watched(*arguments):
        for batch in shown(*arguments):
            taken.append(len(batch))
            yield batch

    monkeypatch.setattr(write, "_shown", watched)
    vectors = np.concatenate([VECTORS[:9], np.full((1, 8, 12), np.nan, np.float32)])
    ids = [{"id": f"new {n}"} for n in range(10)]
    assert main(["add", index, _save(folder / "more.npy", vectors, ids)]) == 1
    assert "expected finite numbers" in capsys.readouterr().err
    assert taken == [4, 4, 2]
    assert len(_ids(index)) == 30  # the two batches before the wrong one are gone with it
    assert main(["add", index, _save(folder / "more.npy", VECTORS[:10], ids)]) == 0
    assert "10 documents added" in capsys.readouterr().out
    assert len(_ids(index)) == 40


def test_an_id_that_is_taken_is_refused_unless_upsert_replaces_it(
    index: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = _save(folder / "more.npy", 2 * VECTORS[:2], [{"id": "doc 4"}, {"id": "new"}])
    assert main(["add", index, more]) == 1
    error = capsys.readouterr().err
    assert "'doc 4' stands in the index already" in error
    assert error.count("\n") == 1
    assert len(_ids(index)) == 30
    assert main(["add", index, more, "--upsert", "--json"]) == 0
    assert _done(capsys) == {"added": 1, "replaced": 1, "documents": 31, "index": index}
    with MetaIndex.open(index) as opened:
        (document,) = opened.get(["doc 4"])
        np.testing.assert_allclose(document.tokens, 2 * VECTORS[0], rtol=1e-2, atol=1e-2)


def test_upsert_without_ids_says_where_they_belong(index: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "more.npy", VECTORS[:2])
    assert main(["add", index, str(folder / "more.npy"), "--upsert"]) == 1
    assert f'--upsert: expected the ids of the documents to replace, as "id" in every line of {folder / "more.jsonl"}' in (
        capsys.readouterr().err
    )


def test_remove_by_id_from_arguments_a_file_and_standard_input(
    index: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["remove", index, "doc 0", "doc 1", "--json"]) == 0
    assert _done(capsys) == {"removed": 2, "documents": 28, "index": index}
    (folder / "ids.txt").write_bytes(b"doc 2\r\n\ndoc 3")
    assert main(["remove", index, "--ids-file", str(folder / "ids.txt")]) == 0
    assert "2 documents removed" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"doc 4\n")))
    assert main(["remove", index, "--ids-file", "-"]) == 0
    assert "1 document removed" in capsys.readouterr().out
    assert _ids(index) == [f"doc {n}" for n in range(5, 30)]


def test_remove_by_filter(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", index, "--filter", '{"lang": {"$in": ["en", "fr"]}}', "--json"]) == 0
    assert _done(capsys) == {"removed": 20, "documents": 10, "index": index}
    assert _ids(index) == [f"doc {n}" for n in range(1, 30, 3)]


def test_integer_ids_are_integers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "docs.jsonl").unlink()
    numbered = str(folder / "numbered")
    assert main(["build", numbered, str(folder / "docs.npy")]) == 0
    assert main(["remove", numbered, "7", "29"]) == 0
    assert len(_ids(numbered)) == 28
    capsys.readouterr()
    assert main(["remove", numbered, "doc 7"]) == 1
    assert "expected an integer, which all ids of this index are, got 'doc 7'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1_0", "\u0663", "-1", "+1", "1.0", "9" * 5000])
def test_what_only_python_reads_as_an_integer_names_no_document(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(folder / "numbers")
    with MetaIndex(path=index) as made:
        made.add(np.ones((11, 1, 2), np.float32))
    assert main(["remove", index, "--", text]) == 1
    assert "expected an integer" in capsys.readouterr().err
    assert _ids(index) == list(range(11))


def test_an_unknown_id_removes_nothing_unless_it_is_ignored(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", index, "doc 1", "nobody"]) == 1
    error = capsys.readouterr().err
    assert "'nobody' not in the index" in error
    assert error.count("\n") == 1
    assert len(_ids(index)) == 30
    assert main(["remove", index, "doc 1", "nobody", "--missing", "ignore", "--json"]) == 0
    assert _done(capsys)["removed"] == 1


def test_ids_that_are_no_utf_8_are_one_line_that_names_the_file(
    index: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ids.txt").write_bytes(b"doc 1\n\xff\n")
    assert main(["remove", index, "--ids-file", str(folder / "ids.txt")]) == 1
    assert f"{folder / 'ids.txt'}: expected UTF-8" in capsys.readouterr().err
    assert len(_ids(index)) == 30


def test_compact_gives_room_back(index: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", index, *(f"doc {n}" for n in range(20))]) == 0
    capsys.readouterr()
    vectors = sum(file.stat().st_size for file in Path(index).rglob("level-*.safetensors"))
    assert main(["compact", index, "--json"]) == 0
    done = _done(capsys)
    assert (done["documents"], done["purged"], done["index"]) == (10, False, index)
    assert done["bytes"] < done["bytes_before"]
    assert sum(file.stat().st_size for file in Path(index).rglob("level-*.safetensors")) < vectors / 2
    assert _ids(index) == [f"doc {n}" for n in range(20, 30)]
    assert main(["compact", index]) == 0
    assert "before" in capsys.readouterr().out


def test_purge_leaves_no_byte_of_a_removed_document(index: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needle = "a sentence that nobody else has"
    more = _save(folder / "more.npy", VECTORS[:1], [{"id": "secret", "metadata": {"text": needle}}])
    assert main(["add", index, more]) == 0
    assert any(needle.encode() in file.read_bytes() for file in Path(index).rglob("*") if file.is_file())
    assert main(["remove", index, "secret"]) == 0
    capsys.readouterr()
    assert main(["compact", index, "--purge", "--json"]) == 0
    assert _done(capsys)["purged"]
    assert not any(needle.encode() in file.read_bytes() for file in Path(index).rglob("*") if file.is_file())


def test_a_purge_beside_a_reader_is_refused(index: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remove", index, "doc 1"]) == 0
    capsys.readouterr()
    with MetaIndex.open(index):
        assert main(["compact", index, "--purge"]) == 1
        error = capsys.readouterr().err
    assert error.startswith("metaindex: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [["add", "INDEX", "docs.npy"], ["remove", "INDEX", "doc 1"], ["compact", "INDEX"]])
def test_a_second_writer_is_refused_in_one_line(
    command: list[str], index: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    with MetaIndex.open(index, "r+"):
        assert main([index if part == "INDEX" else part for part in command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("metaindex: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "a"], "expected one of ID..., --ids-file and --filter"),
        (["remove", "a", "7", "--ids-file", "b"], "expected one of ID..., --ids-file and --filter"),
        (["remove", "a", "--ids-file", "b", "--filter", "{}"], "expected one of ID..., --ids-file and --filter"),
        (["remove", "a", "--filter", '{"n": 1}', "--missing", "ignore"], "give it without --filter"),
        (["remove", "a", "7", "--missing", "maybe"], "invalid choice: 'maybe'"),
        (["remove", "a", "--filter", "[1]"], "argument --filter: expected a JSON object such as"),
        (["remove", "a", "--filter", '{"n": '], "argument --filter: expected a JSON object such as"),
        (["remove", "a", "--filter", '{"n": 1, "n": 2}'], "it names a key twice"),
        (["remove", "a", "--filter", '{"n": NaN}'], "NaN is no number in JSON"),
        (["search", "a", "b", "--filter", '{"n": ' + "[" * 100_000], "argument --filter: expected a JSON object"),
        (["add", "a"], "required: vectors"),
        (["compact"], "required: index"),
        (["build", "a", "b", "--field"], "expected one argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_coarse_stage_is_built_and_its_file_read_where_it_is_trusted(tmp_path, capsys, monkeypatch):
    pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setattr(upkeep, "FEW", 8)
    np.save(tmp_path / "docs.npy", VECTORS)
    np.save(tmp_path / "queries.npy", VECTORS[:3, :4])
    index, queries = str(tmp_path / "index"), str(tmp_path / "queries.npy")
    assert main(["build", index, str(tmp_path / "docs.npy"), "--coarse", "Flat"]) == 0
    assert "coarse Flat" in capsys.readouterr().out
    for more, scorer in (["--trusted"], "faiss"), ([], "cpu"):
        assert main(["search", index, queries, "--plan", "coarse>20 (*,*)", "--json", *more]) == 0
        first, _ = json.loads(capsys.readouterr().out)["stages"]
        assert first["scorer"] == scorer
    assert main(["why-not", index, queries, "3", "--plan", "coarse>20 (*,*)", "--trusted"]) == 0
    assert "coarse>20" in capsys.readouterr().out
    assert main(["build", str(tmp_path / "other"), str(tmp_path / "docs.npy"), "--coarse", "Tree9"]) == 1
    assert "FAISS can't make 'Tree9'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
