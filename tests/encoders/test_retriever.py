"""Texts and images in, hits out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
from PIL import Image

from metaindex import MetaIndex, Retriever
from metaindex.encoders import Encoder
from metaindex.errors import DuplicateIdError, EncoderMismatchError, ReadOnlyError, ShapeError
from tests.encoders.stand_ins import Words, vectors_of

TEXTS = ["wrap long text", "copy a folder", "fold a long paragraph\ninto lines", "sort a list"]


class Pages:
    """An encoder of texts and images that keeps what it was asked."""

    nested = True

    def __init__(self, name="pages"):
        self.fingerprint = f"{name}:1"
        self.calls = []

    def encode_document(self, inputs):
        self.calls.append(len(inputs))
        return [vectors_of(self._text(each)) for each in inputs]

    def encode_query(self, inputs):
        return [vectors_of(self._text(each)) for each in inputs]

    def _text(self, item):
        if isinstance(item, dict):
            return f"{self._text(item['image'])} {item['text']}"
        if isinstance(item, str):
            return item
        if isinstance(item, Image.Image):
            return f"width{item.width}"
        with Image.open(item) as image:
            return f"width{image.width}"


@pytest.fixture
def retriever():
    made = Retriever(Words(), MetaIndex(codec="float32"))
    made.add(TEXTS, ids=["wrap", "copy", "fold", "sort"], metadata=[{"year": year} for year in range(2020, 2024)])
    return made


def test_search(retriever):
    hits = retriever.search("long paragraph", k=2)
    assert [hit.id for hit in hits] == ["fold", "wrap"]
    assert (hits[0].text, hits[0].image, hits[0].metadata) == (TEXTS[2], None, {"year": 2022})
    assert hits[0].score == pytest.approx(2, abs=1e-5)
    assert len(hits) == len(hits[:5]) == 2
    both = retriever.search(["long paragraph", "sort"], k=1, budget=(1, 3))
    assert [each[0].id for each in both] == ["wrap", "sort"]  # the first word, and of equal scores the one added first
    assert both[0].result is both[1].result
    assert retriever.search([]) == []
    assert [hit.id for hit in retriever.search("long", filter={"year": {"$gt": 2020}}, k=1)] == ["fold"]
    assert [hit.id for hit in retriever.search("long", filter={"text": "sort a list"})] == ["sort"]
    hits = retriever.search("wrap", k=1, plan="(*,1)>2 (*,*)")
    assert (hits[0].id, hits.result.plan) == ("wrap", "(1,1)>2 (1,6)")


def test_hits_print_well(retriever):
    lines = repr(retriever.search("long\nparagraph", k=2)).splitlines()
    assert lines[0] == "? long paragraph"
    assert lines[1] == "  1     2.0000  fold  fold a long paragraph into lines"
    assert lines[2].startswith("  2 ")
    assert lines[3].endswith(", exact")
    assert str(retriever.search("long", filter={"year": 1900})).splitlines()[1] == "    nothing found"
    retriever.add(["long " * 100], ids=["x"])
    assert max(map(len, repr(retriever.search("long " * 50)).splitlines())) <= 104
    assert repr(retriever).startswith("Retriever(Words:")


def test_saved_and_opened(retriever, tmp_path):
    known = retriever.search("long paragraph")
    retriever.save(tmp_path / "index")
    with Retriever.open(tmp_path / "index", Words()) as opened:
        assert repr(opened.search("long paragraph")) == repr(known)
        assert len(opened) == 4
        with pytest.raises(ReadOnlyError):
            opened.add(["more"], ids=["more"])
    with pytest.raises(EncoderMismatchError, match="got Words:"):
        Retriever.open(tmp_path / "index", Words(2.0), "r+")
    with Retriever.open(tmp_path / "index", Words(), "r+") as opened:  # the one that was refused let go of its lock
        opened.upsert(["copy a file"], ids=["copy"])
        assert opened.search("file", k=1)[0].text == "copy a file"


def test_images_and_both(tmp_path):
    small, large = (Image.new("RGB", (size, 8)) for size in (8, 16))
    small.save(tmp_path / "small.png")
    encoder = Pages()
    assert isinstance(encoder, Encoder)
    retriever = Retriever(encoder)
    path = tmp_path / "small.png"
    retriever.add([path, large, {"text": "a page", "image": path}, "a text"])
    assert retriever.index.schema.nested is True
    stored = [document.metadata for document in retriever.index.get(range(4))]
    assert stored == [{"image": str(path)}, None, {"text": "a page", "image": str(path)}, {"text": "a text"}]
    hits = retriever.search(Image.new("RGB", (8, 8)), k=2)
    assert [hit.id for hit in hits] == [0, 2]
    assert hits.query == "an image"
    assert hits[1].image == str(path)
    assert retriever.search(path, k=1).query == str(path)
    assert retriever.search({"text": "page", "image": path}, k=1)[0].id == 2


def test_an_iterator_is_read_batch_by_batch():
    encoder = Pages()
    retriever = Retriever(encoder)
    assert retriever.add((f"word{n}" for n in range(10)), batch_size=4).tolist() == list(range(10))
    assert encoder.calls == [4, 4, 2]
    assert retriever.add([]).tolist() == []
    for n in (0, 3, 4, 9):
        assert retriever.search(f"word{n}", k=1)[0].text == f"word{n}"


def test_the_first_add_binds_the_index_to_its_encoder():
    index = MetaIndex()
    Retriever(Pages("a"), index)
    assert index.encoder is None
    Retriever(Pages("a"), index).add(["x"])
    assert index.encoder == "a:1"
    with pytest.raises(EncoderMismatchError):
        Retriever(Pages("b"), index)
    taken = MetaIndex()
    taken.add([vectors_of("x")])
    Retriever(Pages("a"), taken).add(["y"])
    assert taken.encoder == "a:1"
    emptied = Retriever(Pages("a"), MetaIndex())
    other = Retriever(Pages("b"), emptied.index)
    other.add(["x"])
    with pytest.raises(EncoderMismatchError):
        emptied.add(["y"])


def test_a_document_removed_since_the_search_has_no_text(retriever, monkeypatch):
    search = retriever.index.search

    def then_remove(*args, **options):
        found = search(*args, **options)
        retriever.index.remove(["fold"])
        return found

    monkeypatch.setattr(retriever.index, "search", then_remove)
    hits = retriever.search("long paragraph", k=2)
    assert [(hit.id, hit.text) for hit in hits] == [("fold", None), ("wrap", TEXTS[0])]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"inputs": "a text"}, TypeError, "wrap it in a list"),
        ({"inputs": ["a", 7]}, TypeError, r"inputs\[1\]"),
        ({"inputs": ["a", "b"], "ids": ["c"]}, ShapeError, "ids"),
        ({"inputs": ["a"], "ids": ["wrap"]}, DuplicateIdError, "wrap"),
        ({"inputs": ["a"], "ids": ["c"], "metadata": []}, ShapeError, "got 0 for 1"),
        ({"inputs": ["a"], "ids": ["c"], "metadata": [{}, {}]}, ShapeError, "expected 1"),
        ({"inputs": ["a"], "ids": ["c"], "metadata": [7]}, TypeError, r"metadata\[0\]"),
        ({"inputs": ["a"], "ids": ["c"], "metadata": [{"text": "b"}]}, ValueError, r"metadata\[0\]: 'text'"),
        ({"inputs": ["a"], "ids": ["c"], "batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_documents_change_nothing(retriever, arguments, error, match):
    with pytest.raises(error, match=match):
        retriever.add(**arguments)
    assert list(retriever.index) == ["wrap", "copy", "fold", "sort"]


def test_bad_queries_and_encoders(retriever):
    with pytest.raises(TypeError, match=r"query\[1\]: expected a text"):
        retriever.search(["a", 7])
    with pytest.raises(TypeError, match="query: expected a text"):
        retriever.search(7)
    with pytest.raises(ValueError, match="budget"):
        retriever.search("a", budget=0)
    with pytest.raises(TypeError, match="got SimpleNamespace"):
        Retriever(SimpleNamespace())


def test_metadata_may_repeat_the_text(retriever):
    retriever.add(["new"], ids=["new"], metadata=[{"text": "new", "n": 1}])
    assert retriever.search("new", k=1)[0].metadata == {"n": 1}
    assert np.isfinite(retriever.search("new", k=1)[0].score)


def test_an_add_that_fails_says_nothing_of_the_encoder(tmp_path):
    retriever = Retriever(Words(), MetaIndex(path=tmp_path / "index"))
    number = retriever.index._store.snapshot.number
    for write in (retriever.add, retriever.upsert):
        with pytest.raises(TypeError):
            write([5], ids=["a"])
    assert retriever.index.encoder is None
    assert retriever.index._store.snapshot.number == number
    assert Retriever(Words(2.0), retriever.index).index.encoder is None
    retriever.add(["a text"])
    assert retriever.index.encoder == retriever.encoder.fingerprint
    assert retriever.index._store.snapshot.number == number + 1  # the encoder and the documents in one commit
    with pytest.raises(EncoderMismatchError):
        Retriever(Words(2.0), retriever.index)


def test_another_encoder_is_refused_before_it_encodes():
    index = MetaIndex()
    other, late = Retriever(Words(), index), Pages()
    waiting = Retriever(late, index)
    other.add(["a text"])
    with pytest.raises(EncoderMismatchError):
        waiting.add(["a text"])
    assert not late.calls


def test_metadata_of_elsewhere_may_be_anything():
    index = MetaIndex(codec="float32")
    index.add([vectors_of("a"), vectors_of("b")], metadata=[{"text": 5, "n": 1}, {"text": ["b"], "image": {"path": "b.png"}}])
    hits = Retriever(Words(), index).search("a")
    assert [(hit.text, hit.image) for hit in hits] == [(None, None)] * 2
    assert [hit.metadata for hit in hits] == [{"text": 5, "n": 1}, {"text": ["b"], "image": {"path": "b.png"}}]
    assert repr(hits).splitlines()[1].split() == ["1", "1.0000", "0"]
