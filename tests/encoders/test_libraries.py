"""Models of other libraries, tiny and random, indexed and searched: a real pass for each plug, with the library's own scores.

PyLate asks for older versions of what the other tests use: `make pylate-test`. Of colpali-engine, ColQwen2 is tested where
torchvision is installed.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
import torch

from metaindex import Retriever, as_encoder
from metaindex.errors import ShapeError
from tests import tolerances
from tests.encoders.retrieval import ENGINE, TRANSFORMERS, engine, of_colpali_engine, of_transformers, pages
from tests.encoders.scores import assert_scores, searched
from tests.encoders.tiny import images, tiny

QUERIES = ["w1 w2 w3", "w4 w5 w6", "w9 w8 w1"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",  # transformers' own
)


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")


def assert_found(encoder, queries, documents, expected):
    """Scores of an index and hits of a Retriever, against the library's scores [queries, documents]."""
    expected = np.asarray(torch.as_tensor(expected).detach().float())
    assert_scores(searched(encoder, queries, documents), expected)
    retriever = Retriever(encoder)
    retriever.add(documents)
    for query, scores in zip(queries, expected):
        assert [hit.id for hit in retriever.search(query, k=len(documents))] == list(np.argsort(-scores, kind="stable"))


def encoded(made, queries, documents):
    """A library's own padded vectors of texts and images, batch by its own processor."""
    with torch.no_grad():
        found = [made.model(**made.processor.process_queries(queries)), made.model(**made.processor.process_images(documents))]
    return [getattr(each, "embeddings", each) for each in found]


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers(family):
    made = of_transformers(family)
    documents = pages(5)
    expected = made.processor.score_retrieval(*encoded(made, QUERIES, documents))
    encoder = as_encoder(made.model.train(), made.processor, batch_size=2)
    assert encoder.nested is False
    assert_found(encoder, QUERIES, documents, expected)
    assert made.model.training
    with pytest.raises(TypeError, match="got both"):
        encoder.encode_document([{"text": "w1", "image": documents[0]}])
    again = of_transformers(family)
    assert as_encoder(again.model, again.processor).fingerprint == encoder.fingerprint


def test_padding_is_left_out():
    made = of_transformers("colqwen2")
    documents = images(4)  # of different sizes
    with torch.no_grad():
        features = made.processor.process_images(documents)
        padded = made.model(**features).embeddings
    lengths = features["attention_mask"].sum(dim=1).tolist()
    assert len(set(lengths)) == 4
    found = as_encoder(made.model, made.processor, batch_size=4).encode_document(documents)
    for vectors, length, row in zip(found, lengths, padded):
        np.testing.assert_allclose(vectors, row[-length:], rtol=0, atol=tolerances.BATCHED_MODEL)


@pytest.mark.parametrize("family", ENGINE)
def test_colpali_engine(family):
    needs("colpali_engine", *(["torchvision"] if family == "colqwen2" else []))
    made = of_colpali_engine(family)
    encoder = as_encoder(made.model, made.processor, batch_size=2)
    assert encoder.nested is False
    documents = pages(5)
    queries, found = encoded(made, QUERIES, documents)
    assert_found(encoder, QUERIES, documents, made.processor.score_multi_vector(list(queries), list(found), device="cpu"))


@pytest.mark.parametrize("family", ENGINE)
def test_texts_as_documents_of_colpali_engine(family, tmp_path):
    needs("colpali_engine", *(["torchvision"] if family == "colqwen2" else []))
    made = of_colpali_engine(family)
    shown = pages(2)
    shown[1].save(tmp_path / "page.png")
    found = as_encoder(made.model, made.processor, batch_size=3).encode_document(
        ["w1 w2", shown[0], "w3 w4 w5 w6 w7 w8", tmp_path / "page.png", "w9"]
    )
    with torch.no_grad():
        alone = [made.model(**made.processor.process_texts([text]))[0] for text in ("w1 w2", "w3 w4 w5 w6 w7 w8", "w9")]
        seen = made.model(**made.processor.process_images(shown))
    for vectors, expected in zip(found, (alone[0], seen[0], alone[1], seen[1], alone[2])):
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=tolerances.BATCHED_MODEL)


def test_a_model_of_one_vector():
    needs("colpali_engine")
    library = engine("paligemma.bipali")
    made = of_colpali_engine("colpali")
    model = library.BiPali(made.model.config).eval()
    with pytest.raises(ShapeError, match=r"model: expected vectors \[N, T, d\]"):
        as_encoder(model, made.processor).encode_query(QUERIES)


@pytest.mark.parametrize("expansion", [True, False])
def test_pylate(expansion, tmp_path):
    needs("pylate")
    from pylate import models, scores

    made = tiny("bert")
    made.backbone.save_pretrained(tmp_path / "bert")
    made.processor.save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)  # the projection that comes with it
    options = {"embedding_size": 8, "query_length": 8, "document_length": 16, "do_query_expansion": expansion}
    model = models.ColBERT(str(tmp_path / "bert"), device="cpu", **options)
    encoder = as_encoder(model)
    assert encoder.nested is False
    documents = ["w1 w2 w3", "w4 w5 w6", "w7 w1 w4", "w3 w2 w9", "w5 w6 w7"]
    queries = model.encode(QUERIES, is_query=True, show_progress_bar=False)
    found = model.encode(documents, is_query=False, show_progress_bar=False)
    assert_found(encoder, QUERIES, documents, scores.colbert_scores(np.stack(queries), np.stack(found)))
    known = encoder.fingerprint
    model.query_prefix = "[other] "
    other = as_encoder(model).fingerprint
    assert other != known
    model.encode(QUERIES, is_query=True, show_progress_bar=False)
    assert as_encoder(model).fingerprint == other
    model.query_length = 9
    assert as_encoder(model).fingerprint != other
