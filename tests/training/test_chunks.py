"""Chunks and cached gradients against one plain pass."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
import torch

from metaindex.encoders import MetaEmbed
from metaindex.training import Example, MMRLoss
from metaindex.training.chunks import derive
from metaindex.training.coverage import uncovered
from tests import tolerances
from tests.encoders.tiny import images, tiny
from tests.training.tiny import R, T, examples, gradients, model

LOSS = MMRLoss(((1, 1), (R, T)))

# Of transformers 5, about its own calls.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")


def derived(made, batch, **how):
    made.train().zero_grad(set_to_none=True)
    losses = derive(made, LOSS, batch, **how)
    return np.array([*losses.by_group, losses.uncovered]), gradients(made)


def plain(made, batch, coverage=0.0):
    """One forward pass for the queries, one for each kind of document, in the order of the examples."""
    made.train().zero_grad(set_to_none=True)

    def encode(inputs, side):
        return made(made.batch(inputs, side), side)

    queries = encode([each.query for each in batch], "query")
    documents = encode([each.positive for each in batch], "document")
    most = max(len(each.negatives) for each in batch)
    negatives = torch.zeros(len(batch), most, T, made.dim) if most else None
    present = torch.zeros(len(batch), most, dtype=torch.bool) if most else None
    for place, each in enumerate(batch):
        if each.negatives:
            present[place, : len(each.negatives)] = True
            negatives[place, : len(each.negatives)] = encode(list(each.negatives), "document")
    ids = torch.tensor([[each.positive for each in batch].index(each.positive) for each in batch])
    losses = LOSS.by_group(queries, documents, negatives, present=present, ids=ids)
    bare = torch.zeros(())
    if coverage:
        every = [(each.query, "query") for each in batch]
        every += [(text, "document") for each in batch for text in (each.positive, *each.negatives)]
        for text, side in every:
            one = made.batch([text], side)
            bare = bare + uncovered(made(one, side), *made.content(one)).sum() / len(batch)
    (LOSS.total(losses) + coverage * bare).backward()
    return np.array([*losses.detach(), bare.detach()]), gradients(made)


def assert_same(found, expected, tolerance=tolerances.CHUNKED_GRADIENT):
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    assert found[1].keys() == expected[1].keys()
    largest = max(np.abs(values).max() for values in expected[1].values())
    for name, values in expected[1].items():
        np.testing.assert_allclose(found[1][name], values, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("size", [None, 1, 3, 100])
def test_chunks_are_one_batch(cache, size):
    made, batch = model(dim=6), examples(8, hard=2)
    assert_same(derived(made, batch, chunk_size=size, cache=cache), plain(made, batch))


def test_without_hard_negatives():
    made, batch = model(), examples(6)
    assert_same(derived(made, batch, chunk_size=4, cache=True), plain(made, batch))


def test_cached_gradients_drop_the_same_in_both_passes():
    made, batch = model(dropout=0.3), examples(8, hard=1)
    expected = derived(made, batch, chunk_size=3, seed=5)
    assert_same(derived(made, batch, chunk_size=3, seed=5, cache=True), expected)
    other = derived(made, batch, chunk_size=3, seed=6)
    assert np.abs(other[0] - expected[0]).max() > 0.1  # dropout matters


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("size", [None, 3])
def test_what_is_uncovered_of_chunks_is_that_of_one_input_at_a_time(cache, size):
    made, batch = model(adapter=True), examples(8, hard=2)
    expected = plain(made, batch, 3.0)
    assert_same(derived(made, batch, chunk_size=size, cache=cache, coverage=3.0), expected)
    without = derived(made, batch)
    assert without[0][-1] == 0
    (name,) = (each for each in without[1] if each.endswith("meta_tokens"))
    assert np.abs(expected[1][name] - without[1][name]).max() > 0.01  # it matters


def test_images_texts_and_both_in_one_batch():
    made = MetaEmbed(*tiny("paligemma"), R, T)
    shown = images(4)
    batch = [
        Example.of("w1 w2", shown[0], [shown[3], "w9"]),
        Example.of({"text": "w3", "image": shown[1]}, "w4 w5"),
        Example.of("w6", {"text": "w7 w8", "image": shown[2]}, ["w1"]),
    ]
    tower = [name for name, _ in made.named_parameters() if "vision" in name]
    found = derived(made, batch, chunk_size=2, cache=True)
    assert_same(found, derived(made, batch))
    assert any(np.abs(found[1][name]).max() > 0 for name in tower if name in found[1])


def test_bfloat16_is_near():
    for adapter in (False, True):
        made, batch = model(adapter=adapter), examples(8, hard=1)
        how = {"coverage": 1.0} if adapter else {}
        expected, found = derived(made, batch, **how), derived(made, batch, bf16=True, **how)
        np.testing.assert_allclose(found[0], expected[0], rtol=tolerances.BFLOAT16_LOSS)
        assert_same(derived(made, batch, bf16=True, cache=True, **how), found)
        assert next(iter(made.parameters())).dtype == torch.float32


def test_a_frozen_backbone_may_be_bfloat16():
    made, batch = model(adapter=True, dtype=torch.bfloat16), examples(8, hard=1)
    trained = {each.dtype for each in made.parameters() if each.requires_grad}
    assert trained == {torch.float32}
    found = derived(made, batch, bf16=True, coverage=1.0)
    np.testing.assert_allclose(found[0], derived(model(adapter=True), batch, coverage=1.0)[0], rtol=tolerances.BFLOAT16_LOSS)
    assert {values.dtype for values in found[1].values()} == {np.dtype(np.float32)}
