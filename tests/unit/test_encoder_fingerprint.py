"""An index keeps the fingerprint of the encoder that made its vectors."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from metaindex import MetaIndex
from metaindex.cli import main
from metaindex.errors import EncoderMismatchError, ReadOnlyError
from tests.storage import reader

VECTORS = np.ones((3, 2, 4), np.float32)


def test_it_is_kept_on_disk(tmp_path, capsys):
    with MetaIndex(path=tmp_path / "index") as index:
        index.set_encoder("model:1")
        index.add(VECTORS)
        index.compact()
        index.snapshot(tmp_path / "snapshot")
        index.save(tmp_path / "saved")
    for name in ("index", "snapshot", "saved"):
        with MetaIndex.open(tmp_path / name, verify=True) as opened:
            assert opened.encoder == "model:1"
            with pytest.raises(ReadOnlyError):
                opened.set_encoder(None)
        assert len(reader.read(tmp_path / name)) == 3
    assert main(["info", str(tmp_path / "index")]) == 0
    assert "model:1" in capsys.readouterr().out


def test_another_encoder_is_refused():
    index = MetaIndex()
    assert index.encoder is None
    index.check_encoder("model:1")
    index.set_encoder("model:1")
    index.set_encoder("model:2")  # nothing was encoded by the first
    index.add(VECTORS)
    index.set_encoder("model:2")
    for call in (index.check_encoder, index.set_encoder):
        with pytest.raises(EncoderMismatchError, match="vectors of model:2, got model:3"):
            call(SimpleNamespace(fingerprint="model:3"))
    index.set_encoder(None)
    index.set_encoder("model:3")
    assert index.encoder == "model:3"


def test_nested_comes_with_it_where_the_index_does_not_know():
    for before, told, after in [(None, True, True), (None, None, None), (False, True, False), (True, None, True)]:
        index = MetaIndex(nested=before)
        index.set_encoder(SimpleNamespace(fingerprint="model:1", nested=told))
        assert index.schema.nested is after
    index.set_encoder("model:1")
    assert index.schema.nested is True


def test_while_there_are_no_vectors_the_last_encoder_says_whether_they_are_nested():
    def told(name, nested):
        return SimpleNamespace(fingerprint=name, nested=nested)

    index, given = MetaIndex(), MetaIndex(nested=False)
    for one in (index, given):
        one.set_encoder(told("model:1", False))
        one.set_encoder(told("model:2", True))
    assert index.schema.nested is True
    assert given.schema.nested is False
    index.set_encoder(told("model:3", None))
    assert index.schema.nested is None
    index.set_encoder(told("model:4", False))
    index.set_encoder("model:4")
    index.add(np.ones((1, 1, 2)))
    index.set_encoder(None)
    index.set_encoder(told("model:5", True))
    assert index.schema.nested is False


@pytest.mark.parametrize("wrong", ["", "a b", "a" * 257, "é", 7])
def test_what_is_no_fingerprint(wrong):
    index = MetaIndex()
    with pytest.raises(ValueError, match="encoder: expected 1 to 256"):
        index.set_encoder(wrong)
    assert index.encoder is None


def test_without_one_the_schema_is_what_it_was_before_there_were_any():
    index = MetaIndex()
    assert "encoder" not in json.loads(index.schema.to_json())
    index.set_encoder("model:1")
    assert json.loads(index.schema.to_json())["encoder"] == "model:1"
