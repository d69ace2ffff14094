"""What vectors leave uncovered of a content, against the formula, and what training on it does."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
import torch

from metaindex.encoders import MetaEmbed
from metaindex.training import MMRLoss, TrainingOptions, train, with_lora
from metaindex.training.coverage import SOFTNESS, uncovered
from tests import tolerances
from tests.encoders import plain
from tests.encoders.tiny import IMAGE_FAMILIES, TEXTS, images, tiny
from tests.training.tiny import R, T, examples, model

# Of transformers 5 and peft, about their own calls.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive(vectors, content, present):
    found = []
    for row in range(len(vectors)):
        best = []
        for token in content[row][present[row]].double():
            cosines = vectors[row].double() @ token
            shares = torch.exp(cosines / SOFTNESS)
            best.append((cosines * shares).sum() / shares.sum())
        found.append(1 - sum(best) / len(best))
    return torch.stack(found)


def test_the_formula_values_and_gradients():
    vectors, content = unit(3, 5, 8), unit(3, 7, 8, seed=1)
    present = torch.arange(7) < torch.tensor([[7], [1], [4]])
    ours, theirs = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    found, expected = uncovered(ours, content, present), naive(theirs, content, present)
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=tolerances.UNCOVERED)
    found.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad, atol=tolerances.UNCOVERED)


def test_what_is_covered_costs_nothing_and_what_is_absent_does_not_count():
    content = torch.eye(8)[None, :4]
    present = torch.tensor([[True, True, True, False]])
    covered = uncovered(torch.eye(8)[None, :3], content, present)
    np.testing.assert_allclose(covered, 0, atol=1e-6)
    assert uncovered(torch.eye(8)[None, :1], content, present) > 0.5


@pytest.mark.parametrize("family", ["bert", "llama", *IMAGE_FAMILIES])
def test_content_is_what_the_backbone_makes_of_it_alone(family):
    made, again = tiny(family), tiny(family)
    model = MetaEmbed(with_lora(made.backbone, rank=2), made.processor, R, T).eval()
    for name, each in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each)
    tokenizer = getattr(made.processor, "tokenizer", made.processor)
    states, present = model.content(model.batch(TEXTS, "document"))
    assert not states.requires_grad
    for text, found, here in zip(TEXTS, states, present):
        tokens = tokenizer(plain.with_start(family, text), return_tensors="pt")
        if family == "paligemma":
            tokens["token_type_ids"] = torch.zeros_like(tokens["input_ids"])
        expected = again.backbone.base_model(**tokens).last_hidden_state[0].detach()
        said = len(text.split())
        expected = torch.nn.functional.normalize(expected, dim=-1)[-max(1, said) :]
        assert here.sum() == max(1, said)  # of an empty text its one mark
        np.testing.assert_allclose(found[here], expected, atol=tolerances.BATCHED_MODEL)


def test_nothing_is_dropped_of_the_content():
    made = model(dropout=0.5, adapter=True).train()
    batch = made.batch(TEXTS, "query")
    first, again = made.content(batch)[0], made.content(batch)[0]
    np.testing.assert_array_equal(first, again)
    assert made.training


def test_the_content_of_images():
    made = tiny("paligemma")
    model = MetaEmbed(with_lora(made.backbone, rank=2), made.processor, R, T).eval()
    states, present = model.content(model.batch([{"text": "w1 w2", "image": image} for image in images(2)], "document"))
    assert (present.sum(dim=1) > 2).all()
    assert torch.isfinite(states).all()


def test_without_an_adapter_there_is_nothing_to_compare_with():
    plain_model = model()
    with pytest.raises(ValueError, match="backbone: expected one with an adapter"):
        plain_model.content(plain_model.batch(["w1"], "query"))
    with pytest.raises(ValueError, match="coverage: expected a model with an adapter"):
        train(plain_model, examples(8), TrainingOptions(batch_size=4, coverage=1.0), loss=MMRLoss(((1, 1), (R, T))))


def test_it_falls_and_vectors_differ():
    def likeness(made):
        vectors = torch.from_numpy(made.encode_document([each.positive.text for each in batch]))
        return float((vectors @ vectors.transpose(1, 2)).mean())

    batch, found = examples(24), {}
    for weight in (0.0, 10.0):
        made = model(adapter=True)
        options = TrainingOptions(
            steps=60, batch_size=8, learning_rate=1e-2, meta_learning_rate=1e-2, coverage=weight, log_every=1
        )
        log = train(made, batch, options, loss=MMRLoss(((1, 1), (R, T))))
        found[weight] = likeness(made)
        if weight:
            assert log[-2]["uncovered"] < 0.8 * log[0]["uncovered"]
        else:
            assert "uncovered" not in log[0]
    assert found[10.0] < found[0.0]
