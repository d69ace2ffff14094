"""MetaEmbed as modules of sentence-transformers: the same vectors, before and after saving, at every budget."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", minversion="6", reason="MultiVectorEncoder came with version 6")
import sentence_transformers as library
import torch

from metaindex import as_encoder
from metaindex.encoders import MetaEmbed
from metaindex.errors import MissingDependencyError, UnsupportedFormatError
from tests import tolerances
from tests.encoders.scores import assert_scores, searched, sums
from tests.encoders.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, TEXTS, images, tiny

# Of transformers 5, about its own calls.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
R, T = 3, 5
PROMPTS = {"query_prompt": "w20 ", "document_prompt": "w21 w22 "}


def loaded(path, **options):
    return library.MultiVectorEncoder(str(path), device="cpu", local_files_only=True, trust_remote_code=True, **options)


def assert_same(model, whole, inputs):
    """``model`` is the library's, ``whole`` a MetaEmbed."""
    for found, expected in (
        (model.encode_query(inputs, batch_size=3), whole.encode_query(inputs)),
        (model.encode_document(inputs, batch_size=3), whole.encode_document(inputs)),
    ):
        assert [tuple(vectors.shape) for vectors in found] == [expected.shape[1:]] * len(inputs)
        np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=0, atol=tolerances.BATCHED_MODEL)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_texts(family, side):
    whole = MetaEmbed(*tiny(family, side), R, T, **PROMPTS)
    model = whole.to_sentence_transformers()
    assert_same(model, whole, TEXTS)
    assert model.get_embedding_dimension() == whole.dim


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_images(family, side):
    whole = MetaEmbed(*tiny(family, side), R, T, dim=6, **PROMPTS)
    model = whole.to_sentence_transformers()
    assert model.supports("image")
    shown = images(4)
    for inputs in (shown, [{"image": image, "text": text} for image, text in zip(shown, TEXTS)], TEXTS):
        assert_same(model, whole, inputs)
    mixed = [shown[0], "w3", {"image": shown[3], "text": "w4"}]
    with pytest.raises(ValueError, match="modality"):
        model.encode_document(mixed)
    with pytest.raises(ValueError, match="with an image or none, got both"):
        model[0].preprocess(mixed)
    found = as_encoder(model).encode_document(mixed)
    np.testing.assert_allclose(found, whole.encode_document(mixed), rtol=0, atol=tolerances.BATCHED_MODEL)


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "paligemma", "mllama"])
def test_saved_and_loaded(family, tmp_path):
    whole = MetaEmbed(*tiny(family), R, T, dim=6, max_length=20, **PROMPTS)
    whole.to_sentence_transformers().save_pretrained(str(tmp_path / "model"))
    names = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert names <= {".json", ".safetensors", ".txt", ".jinja", ".md"}
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        library.MultiVectorEncoder(str(tmp_path / "model"), device="cpu", local_files_only=True)
    model = loaded(tmp_path / "model")
    inputs = images(2) if family in IMAGE_FAMILIES else TEXTS
    assert_same(model, whole, inputs)
    assert model.max_seq_length == 20
    assert as_encoder(model).fingerprint == whole.fingerprint
    again = model[0].metaembed  # the way back
    assert again.settings() == whole.settings()
    np.testing.assert_array_equal(again.encode_document(inputs), whole.encode_document(inputs))  # in the same batches
    model.save_pretrained(str(tmp_path / "again"))
    assert_same(loaded(tmp_path / "again"), whole, inputs)


def test_the_backbone_in_a_checkpoint_is_an_ordinary_one(tmp_path):
    import transformers

    made = tiny("bert")
    ids = made.processor(TEXTS[0], return_tensors="pt")
    expected = made.backbone(**ids).last_hidden_state
    MetaEmbed(*made, R, T).to_sentence_transformers().save_pretrained(str(tmp_path / "model"))
    backbone = transformers.AutoModel.from_pretrained(tmp_path / "model")
    processor = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(backbone(**processor(TEXTS[0], return_tensors="pt")).last_hidden_state, expected)


def test_budgets(tmp_path):
    whole = MetaEmbed(*tiny("llama"), R, T)
    model = whole.to_sentence_transformers()
    queries, documents = whole.encode_query(TEXTS), whole.encode_document(TEXTS)
    for budget, r_q, r_c in (((2, 4), 2, 4), (1, 1, 1), (4, 3, 4), (None, R, T)):
        for given in ({"budget": budget}, {}):
            model[2].budget = None if given else budget
            for found, expected in (
                (model.encode_query(TEXTS, **given), queries[:, :r_q]),
                (model.encode_document(TEXTS, **given), documents[:, :r_c]),
            ):
                np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=0, atol=tolerances.BATCHED_MODEL)
    model[2].budget = (2, 4)
    model.save_pretrained(str(tmp_path / "model"))
    assert loaded(tmp_path / "model")[2].budget == (2, 4)
    for wrong in ((R + 1, T), (0, 1), 0):
        with pytest.raises(ValueError, match="budget"):
            model[2].budget = wrong
        with pytest.raises(ValueError, match="budget"):
            model.encode_query(TEXTS, budget=wrong)


@pytest.mark.parametrize("budget", [None, (2, 4)])
def test_scores_are_those_of_an_index(budget):
    model = MetaEmbed(*tiny("llama"), R, T, **PROMPTS).to_sentence_transformers()
    encoder = as_encoder(model)
    assert encoder.nested is True
    found = searched(encoder, TEXTS[:3], TEXTS, budget)
    expected = model.similarity(model.encode_query(TEXTS[:3], budget=budget), model.encode_document(TEXTS, budget=budget))
    assert_scores(found, expected)


def test_fingerprints_tell_what_differs():
    whole = MetaEmbed(*tiny("bert"), R, T, **PROMPTS)
    model = whole.to_sentence_transformers()
    assert as_encoder(model).fingerprint == whole.fingerprint
    model[2].budget = 2  # a prefix of the same vectors
    assert as_encoder(model).fingerprint == whole.fingerprint
    known = {whole.fingerprint}
    model.similarity_fn_name = "meanmaxsim"
    known.add(as_encoder(model).fingerprint)
    model.similarity_fn_name = "maxsim"
    model.prompts["query"] = "w30 "
    known.add(as_encoder(model).fingerprint)
    model.prompts["query"] = PROMPTS["query_prompt"]
    with torch.no_grad():
        whole.table.meta_tokens.mul_(2)
    known.add(as_encoder(model).fingerprint)
    assert len(known) == 4


def test_gradients_and_dtype():
    whole = MetaEmbed(*tiny("llama"), R, T, dim=6)
    model = whole.to_sentence_transformers()
    features = model.preprocess(TEXTS, prompt="w20 ", task="document", max_length=2)
    assert features["content_lengths"].max() == 2
    vectors = model(features, task="document")["token_embeddings"]
    assert vectors.shape == (len(TEXTS), T, 6)
    vectors[..., 0].sum().backward()
    assert (whole.table.meta_tokens.grad.abs().sum(dim=1) > 0).all()
    assert whole.projection.weight.grad.abs().sum() > 0
    expected = whole.encode_document(TEXTS)
    found = model.to(torch.bfloat16).encode_document(TEXTS)
    assert {vectors.dtype for vectors in found} == {torch.float32}
    np.testing.assert_allclose(torch.stack(found).numpy(), expected, rtol=0, atol=tolerances.BFLOAT16_MODEL)


def test_a_loss_of_the_library():
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    whole = MetaEmbed(*tiny("bert"), R, T, **PROMPTS)
    model = whole.to_sentence_transformers()
    features = [
        model.preprocess(TEXTS, prompt=model.prompts[side], task=side) | {"task": side} for side in ("query", "document")
    ]
    loss = MultiVectorMultipleNegativesRankingLoss(model)(features)
    loss.backward()
    assert (whole.table.meta_tokens.grad.abs().sum(dim=1) > 0).all()
    scores = torch.as_tensor(sums(whole.encode_query(TEXTS), whole.encode_document(TEXTS)))
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(len(TEXTS)))
    assert loss.item() == pytest.approx(expected.item(), rel=tolerances.BATCHED_MODEL)


def test_an_adapter_is_added_to_the_backbone(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    made = tiny("llama")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    whole = MetaEmbed(peft.get_peft_model(made.backbone, config), made.processor, R, T).eval()
    model = whole.to_sentence_transformers()
    assert_same(model, whole, TEXTS)
    model.save_pretrained(str(tmp_path / "model"))
    assert_same(loaded(tmp_path / "model"), whole, TEXTS)
    assert_same(model, whole, TEXTS)


def test_lengths():
    model = MetaEmbed(*tiny("bert"), R, T).to_sentence_transformers()
    assert model.max_seq_length == 64 - R - T
    model.max_seq_length = 4
    texts = ["w1 w2 w3 w4 w5", "w1 w2 w3"]
    first, second = model.encode_document(texts)
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerances.BATCHED_MODEL)
    with pytest.raises(ValueError, match="max_seq_length: expected at most 56"):
        model.max_seq_length = 57


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaindex.encoders.sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match="sentence-transformers 6 or later"):
        MetaEmbed(*tiny("bert"), R, T).to_sentence_transformers()


def test_bad_checkpoints(tmp_path):
    model = MetaEmbed(*tiny("bert"), R, T, dim=6).to_sentence_transformers()
    model.save_pretrained(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="backend: expected 'torch'"):
        loaded(tmp_path / "model", backend="onnx")
    settings = tmp_path / "model" / "meta_tokens.json"
    known = json.loads(settings.read_text())
    settings.write_text(json.dumps(known | {"backbone": "pipeline"}))
    with pytest.raises(UnsupportedFormatError, match="no model 'pipeline'"):
        loaded(tmp_path / "model")
    settings.write_text(json.dumps(known))
    (tmp_path / "model" / "meta_tokens.safetensors").unlink()
    with pytest.raises(UnsupportedFormatError, match=r"no meta_tokens\.json and meta_tokens\.safetensors"):
        loaded(tmp_path / "model")
    model.save_pretrained(str(tmp_path / "other"))
    (tmp_path / "other" / "1_SelectMetaTokens" / "projection.safetensors").unlink()
    with pytest.raises(UnsupportedFormatError, match=r"no projection\.safetensors"):
        loaded(tmp_path / "other")
