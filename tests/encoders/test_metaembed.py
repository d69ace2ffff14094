"""MetaEmbed on tiny random models of each family, against a plain computation of one input at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
import torch

from metaindex import MetaIndex
from metaindex.encoders import Encoder, MetaEmbed
from metaindex.errors import UnsupportedFormatError
from tests import tolerances
from tests.encoders import plain
from tests.encoders.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, TEXTS, images, tiny

# Of transformers 5 and peft, about their own calls.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
R, T = 3, 5
FAMILIES = TEXT_FAMILIES + IMAGE_FAMILIES


def unit(states, first, count):
    chosen = states[first : first + count].detach().double().numpy()
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, atol=tolerances.BATCHED_MODEL)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_texts(family, side):
    made = tiny(family, side)
    model = MetaEmbed(*made, R, T)
    queries, documents = model.encode_query(TEXTS, batch_size=3), model.encode_document(TEXTS)
    assert queries.shape == (len(TEXTS), R, 16)
    assert documents.shape == (len(TEXTS), T, 16)
    assert queries.dtype == documents.dtype == np.float32
    for text, query, document in zip(TEXTS, queries, documents):
        states = plain.states(family, model, made, text)
        assert_close(query, unit(states, 0, R))
        assert_close(document, unit(states, R, T))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_images_with_and_without_text(family, side, tmp_path):
    made = tiny(family, side)
    model = MetaEmbed(*made, R, T)
    shown = images(4)
    shown[2].save(tmp_path / "page.png")
    inputs = [shown[0], {"text": "w1 w2", "image": shown[1]}, "w3", tmp_path / "page.png", {"image": shown[3], "text": "w4"}]
    expected = [("", shown[0]), ("w1 w2", shown[1]), ("w3", None), ("", shown[2]), ("w4", shown[3])]
    queries, documents = model.encode_query(inputs, batch_size=3), model.encode_document(inputs)
    for (text, image), query, document in zip(expected, queries, documents):
        states = plain.states(family, model, made, text, image)
        assert_close(query, unit(states, 0, R))
        assert_close(document, unit(states, R, T))
    assert np.abs(documents[0] - documents[3]).max() > 0.01  # the image matters


def test_projection_prompts_and_cut_texts():
    made = tiny("bert")
    model = MetaEmbed(*made, R, T, dim=6, query_prompt="w20 ", document_prompt="w21 w22 ", max_length=5)
    assert (model.dim, model.encode_query(["w1"]).shape) == (6, (1, R, 6))
    for found, cut, first, count in (
        (model.encode_query(["w1 w2 w3 w4 w5 w6"]), "w20 w1 w2 w3", 0, R),
        (model.encode_document(["w1 w2 w3 w4 w5 w6"]), "w21 w22 w1 w2", R, T),
    ):
        states = model.projection(plain.states("bert", model, made, cut))
        assert_close(found[0], unit(states, first, count))


def test_by_default_a_text_is_cut_to_what_the_backbone_has_positions_for():
    model = MetaEmbed(*tiny("bert"), R, T)
    assert model.max_length == 64 - R - T
    assert np.isfinite(model.encode_document(["w1 " * 500])).all()


def test_a_zero_vector_stays_zero():
    model = MetaEmbed(*tiny("bert"), R, T, dim=4)
    torch.nn.init.zeros_(model.projection.weight)
    np.testing.assert_array_equal(model.encode_query(["w1"]), 0)


def test_gradients_reach_meta_tokens_and_backbone():
    model = MetaEmbed(*tiny("llama"), R, T)
    vectors = model(model.batch(TEXTS, "document"), "document")
    assert vectors.shape == (len(TEXTS), T, 16)
    vectors[..., 0].sum().backward()
    used = model.table.meta_tokens.grad.abs().sum(dim=1) > 0
    assert used.all()  # the mask is causal, so document tokens see query tokens
    assert model.table.base.weight.grad.abs().sum() > 0


def test_bfloat16_and_training_mode():
    model = MetaEmbed(*tiny("llama"), R, T).train()
    expected = model.encode_document(TEXTS)
    assert model.training
    known = model.fingerprint
    found = model.to(torch.bfloat16).encode_document(TEXTS, convert_to_tensor=True)
    assert (found.dtype, found.device.type) == (torch.float32, "cpu")
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerances.BFLOAT16_MODEL)
    assert model.fingerprint == known


def test_what_an_index_makes_of_them():
    model = MetaEmbed(*tiny("llama"), R, T)
    assert isinstance(model, Encoder)
    queries, documents = model.encode_query(TEXTS), model.encode_document(TEXTS)
    index = MetaIndex(codec="float32", nested=model.nested)
    index.add(documents)
    scores, ids = index.search(queries, k=len(TEXTS), budget=(2, 4))
    products = np.einsum("qrd,ntd->qnrt", queries[:, :2], documents[:, :4]).max(axis=3).sum(axis=2)
    np.testing.assert_allclose(np.take_along_axis(products, ids, axis=1), scores, **tolerances.score_tolerance(products))


@pytest.mark.parametrize("family", ["bert", "llama", "paligemma", "mllama"])
def test_saved_and_loaded(family, tmp_path):
    model = MetaEmbed(*tiny(family), R, T, dim=6, query_prompt="w20 ", max_length=20)
    model.save(tmp_path / "model")
    names = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert names <= {".json", ".safetensors", ".txt", ".jinja", ".md"}
    loaded = MetaEmbed.load(tmp_path / "model")
    assert loaded.settings() == model.settings()
    assert loaded.fingerprint == model.fingerprint
    inputs = TEXTS + (images(2) if family in IMAGE_FAMILIES else [])
    np.testing.assert_array_equal(loaded.encode_document(inputs), model.encode_document(inputs))
    assert not loaded.training
    assert MetaEmbed.load(tmp_path / "model", dtype=torch.bfloat16).table.weight.dtype == torch.bfloat16
    with pytest.raises(FileExistsError, match="choose another path"):
        model.save(tmp_path / "model")


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    model = MetaEmbed(*tiny("bert"), R, T)
    known = model.encode_query(TEXTS)
    monkeypatch.setattr(model.processor, "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(model.encode_query(TEXTS), known)


def turn_ranks(model):
    """The same adapter, whose products are added up in another order."""
    for name, each in model.named_parameters():
        if "lora_" in name:
            each.data = each.data.flip(0 if "lora_A" in name else 1)


def test_adapter_alone_and_merged(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    made = tiny("llama")
    made.backbone.save_pretrained(tmp_path / "backbone")
    config = peft.LoraConfig(r=5, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = MetaEmbed(peft.get_peft_model(made.backbone, config), made.processor, R, T).eval()
    known = model.encode_document(TEXTS)
    assert np.abs(known - MetaEmbed(*tiny("llama"), R, T).encode_document(TEXTS)).max() > 0.01  # the adapter does something
    model.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "backbone").exists()
    for backbone in (str(tmp_path / "backbone"), tiny("llama").backbone):
        loaded = MetaEmbed.load(tmp_path / "adapter", backbone=backbone)
        assert_close(loaded.encode_document(TEXTS), known)
        assert loaded.fingerprint == model.fingerprint
    added = MetaEmbed.load(tmp_path / "adapter", backbone=str(tmp_path / "backbone"), merge=True)
    assert not hasattr(added.backbone, "peft_config")
    assert all(each.requires_grad for each in added.parameters())
    assert_close(added.encode_document(TEXTS), known)
    turn_ranks(model)
    model.save(tmp_path / "turned")
    turned = MetaEmbed.load(tmp_path / "turned", backbone=str(tmp_path / "backbone"), merge=True)
    assert turned.fingerprint == added.fingerprint  # a machine may add in any order
    turn_ranks(model)
    with pytest.raises(ValueError, match="give the model or its path"):
        MetaEmbed.load(tmp_path / "adapter")
    model.save(tmp_path / "merged", merge=True)
    assert_close(MetaEmbed.load(tmp_path / "merged").encode_document(TEXTS), known)
    np.testing.assert_array_equal(model.encode_document(TEXTS), known)
    with pytest.raises(ValueError, match="merge: expected a folder with an adapter"):
        MetaEmbed.load(tmp_path / "merged", merge=True)
    with pytest.raises(ValueError, match="expected none"):
        MetaEmbed.load(tmp_path / "merged", backbone=tiny("llama").backbone)
    with pytest.raises(ValueError, match="without an adapter"):
        MetaEmbed(*tiny("llama"), R, T).save(tmp_path / "x", merge=True)


def test_a_folder_names_models_only(tmp_path):
    MetaEmbed(*tiny("bert"), R, T).save(tmp_path / "model")
    settings = tmp_path / "model" / "metaembed.json"
    text = settings.read_text()
    for name in ("pipeline", "AutoTokenizer", "no_such_thing"):
        settings.write_text(text.replace('"BertModel"', f'"{name}"'))
        with pytest.raises(UnsupportedFormatError, match=f"no model '{name}'"):
            MetaEmbed.load(tmp_path / "model")


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError):
        MetaEmbed.load(tmp_path / "nothing")
    with pytest.raises(UnsupportedFormatError, match="no MetaEmbed model"):
        MetaEmbed.load(tmp_path)
    (tmp_path / "metaembed.json").write_text("[]")
    with pytest.raises(UnsupportedFormatError, match="not what"):
        MetaEmbed.load(tmp_path)
    (tmp_path / "metaembed.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(UnsupportedFormatError, match="format 9"):
        MetaEmbed.load(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        ("w1", TypeError, "wrap it in a list"),
        (Path("x.png"), TypeError, "wrap it in a list"),
        (7, TypeError, "expected a list"),
        (["w1", 7], TypeError, r"inputs\[1\]: expected a text, an image"),
        ([{"texts": "w1"}], ValueError, "'text' and 'image'"),
        ([{}], ValueError, "got neither"),
        ([{"text": 7}], TypeError, r"inputs\[0\]\['text'\]"),
        ([{"image": 7}], TypeError, r"inputs\[0\]\['image'\]"),
        ([images(1)[0]], ValueError, "takes texts only"),
    ],
)
def test_bad_inputs(inputs, error, match):
    model = MetaEmbed(*tiny("bert"), R, T)
    with pytest.raises(error, match=match):
        model.encode_query(inputs)


def test_bad_arguments(tmp_path):
    made = tiny("bert")
    with pytest.raises(ValueError, match="64 positions, got 32 and 32"):
        MetaEmbed(*made, 32, 32)
    with pytest.raises(ValueError, match="query_tokens: expected at least 1"):
        MetaEmbed(*made, 0, T)
    with pytest.raises(ValueError, match="max_length: expected at most 56"):
        MetaEmbed(*made, R, T, max_length=57)
    MetaEmbed(*made, R, T)
    with pytest.raises(ValueError, match="has Meta Tokens already"):
        MetaEmbed(*made, R, T)
    model = MetaEmbed(*tiny("qwen2_5_vl"), R, T, max_length=6)
    with pytest.raises(ValueError, match="at most 6 tokens with an image, got 10"):
        model.encode_document([{"image": images(4)[2], "text": ""}])
    with pytest.raises(FileNotFoundError):
        model.encode_document([tmp_path / "nothing.png"])


def test_images_need_a_token_to_pad_with():
    made = tiny("mllama")
    made.processor.tokenizer.pad_token = None
    with pytest.raises(ValueError, match="set it to its eos_token"):
        MetaEmbed(*made, R, T)


def test_no_bar_where_there_is_no_terminal(capsys):
    MetaEmbed(*tiny("bert"), R, T).encode_query(TEXTS, progress=True)
    assert capsys.readouterr() == ("", "")


def test_no_inputs():
    model = MetaEmbed(*tiny("bert"), R, T)
    assert model.encode_query([]).shape == (0, R, 16)
    with pytest.raises(ValueError, match="inputs: expected at least one, got none"):
        model.batch([], "query")
