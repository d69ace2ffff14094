"""The loop: what is trained, at which rate, repeatable, interrupted and resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
import torch

from metaindex.encoders import MetaEmbed
from metaindex.errors import NonFiniteError, ShapeError
from metaindex.training import Example, MMRLoss, TrainingOptions, evaluate, train, with_lora
from metaindex.training.order import batches
from tests.encoders.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, tiny
from tests.training.runs import EXAMPLES, HELD_OUT, LOSS, OPTIONS, assert_equal, trained, without_times
from tests.training.tiny import R, T, examples, model, weights


def test_the_log(tmp_path):
    _, log = trained(evaluation=HELD_OUT, output=tmp_path / "run")
    assert [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == log
    assert [line["step"] for line in log if "loss" in line] == list(range(1, 9))
    assert [line["step"] for line in log if "evaluation" in line] == [3, 6, 8]
    for line in log:
        if "loss" in line:
            assert set(line["losses"]) == {"(1,1)", f"({R},{T})"}
            np.testing.assert_allclose(line["loss"], sum(line["losses"].values()), rtol=1e-6)
            assert set(line["learning_rates"]) == {"backbone", "meta_tokens"}
        else:
            assert set(line["evaluation"]) == {"(1,1)", f"({R},{T})"}
            assert all(set(found) == {"ndcg@10", "loss"} for found in line["evaluation"].values())
    assert log[-1]["seconds"] >= log[0]["seconds"] > 0


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules(schedule):
    _, log = trained(options=replace(OPTIONS, schedule=schedule, warmup=0.25, epochs=3))
    rates = [line["learning_rates"]["backbone"] for line in log if "loss" in line]
    assert rates[0] == 0
    assert rates[3] == max(rates) == OPTIONS.learning_rate
    assert (rates[-1] == OPTIONS.learning_rate) == (schedule == "constant")
    assert schedule == "constant" or rates[3:] == sorted(rates[3:], reverse=True)


def test_rates_of_their_own():
    before = weights(model(dim=6))
    for moved in ("learning_rate", "meta_learning_rate", "projection_learning_rate"):
        still = dict.fromkeys(("learning_rate", "meta_learning_rate", "projection_learning_rate"), 0.0)
        after, _ = trained(model(dim=6), replace(OPTIONS, **still | {moved: 1e-2}))
        changed = {name for name, values in after.items() if (values != before[name]).any()}
        expected = {name for name in after if "meta_tokens" in name or name == "projection.weight"}
        if moved == "learning_rate":
            assert len(changed) > 20
            assert not changed & expected
        else:
            assert changed == {name for name in expected if ("meta" in name) == moved.startswith("meta")}


@pytest.mark.parametrize("family", TEXT_FAMILIES + IMAGE_FAMILIES)
def test_lora_trains_the_adapter_and_the_meta_tokens(family):
    made = tiny(family)
    made = MetaEmbed(with_lora(made.backbone, rank=2, alpha=4), made.processor, R, T)
    before = weights(made)
    after, _ = trained(made)
    changed = {name for name, values in after.items() if (values != before[name]).any()}
    assert all("lora_" in name or "meta_tokens" in name for name in changed)
    assert any("lora_A" in name for name in changed)
    assert not any("vis" in name or "pooler" in name for name in after if "lora_" in name)
    layers = {name.split("lora_")[0] for name in after if "lora_" in name}
    assert len(layers) >= 2 * (4 if family == "gpt2" else 6)


def test_adapters_need_layers():
    with pytest.raises(ValueError, match="rank: expected at least 1"):
        with_lora(tiny("bert").backbone, rank=0)
    table = torch.nn.Embedding(2, 2)
    with pytest.raises(ValueError, match="found none in Embedding"):
        with_lora(SimpleNamespace(base_model=table))
    with pytest.raises(ValueError, match="backbone: it has an adapter already"):
        with_lora(with_lora(tiny("bert").backbone, rank=2))
    with pytest.raises(ValueError, match="backbone: it has Meta Tokens already"):
        with_lora(model().backbone)


def test_training_goes_on_with_an_adapter_that_was_loaded(tmp_path):
    made = tiny("bert")
    made.backbone.save_pretrained(tmp_path / "backbone")
    MetaEmbed(with_lora(made.backbone, rank=2), made.processor, R, T).save(tmp_path / "model")
    loaded = MetaEmbed.load(tmp_path / "model", backbone=tmp_path / "backbone")
    before = weights(loaded)
    after, _ = trained(loaded)
    changed = {name for name, values in after.items() if (values != before[name]).any()}
    assert any("lora_A" in name for name in changed)
    assert all("lora_" in name or "meta_tokens" in name for name in changed)


def test_the_same_seed_is_the_same_model():
    first, log = trained()
    again, log_again = trained()
    assert_equal(again, first)
    assert without_times(log_again) == without_times(log)
    for other in (replace(OPTIONS, seed=1), replace(OPTIONS, by_length=True)):
        found, _ = trained(options=other)
        assert any((found[name] != values).any() for name, values in first.items())


def test_nothing_is_dropped_alike_twice(monkeypatch):
    seeds = []
    original = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or original(seed))
    trained(model(), options=replace(OPTIONS, seed=0))
    trained(model(), options=replace(OPTIONS, seed=1))
    drawn = [seed for seed in seeds if seed != 0]  # that of model()
    assert len(set(drawn)) == len(drawn) > 2 * 8 * 3


def test_without_dropout():
    found, _ = trained(model(dropout=0.5), replace(OPTIONS, dropout=False))
    expected, _ = trained(model(dropout=0.0))
    assert_equal(found, expected)
    found, _ = trained(model(dropout=0.5))
    assert any((found[name] != values).any() for name, values in expected.items())


def test_the_callers_random_numbers_and_mode_stay():
    made = model(dropout=0.1).eval()
    state = torch.random.get_rng_state()
    trained(made)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not made.training


def test_an_epoch_has_every_example_once():
    order = batches(EXAMPLES, 4, seed=0, epoch=0, by_length=False)
    places = [place for batch in order for place in batch]
    assert len(set(places)) == len(places) == 16
    assert order != batches(EXAMPLES, 4, seed=0, epoch=1, by_length=False)
    assert order != batches(EXAMPLES, 4, seed=1, epoch=0, by_length=False)
    assert order == batches(EXAMPLES, 4, seed=0, epoch=0, by_length=False)


def test_batches_of_like_length():
    many = examples(1000)
    lengths = np.array([len(each.query.text) + len(each.positive.text) for each in many])

    def spread(by_length):
        order = batches(many, 8, seed=0, epoch=0, by_length=by_length)
        assert len({place for batch in order for place in batch}) == 1000
        return np.mean([np.ptp(lengths[batch]) for batch in order])

    assert spread(True) < spread(False) / 5
    order = [lengths[batch].mean() for batch in batches(many, 8, seed=0, epoch=0, by_length=True)]
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.3  # short and long ones take turns


@pytest.mark.parametrize("by_length", [False, True])
def test_neighbours_share_a_batch(by_length):
    many = examples(999)
    orders = [batches(many, 8, seed=0, epoch=epoch, by_length=by_length, neighbours=4) for epoch in range(2)]
    for order in orders:
        assert len({place for batch in order for place in batch}) == 992
        assert len(order) == 124
        followed = np.mean([(place + 1) % 999 in batch for batch in order for place in batch])
        assert followed > 0.74  # three of four, but for the last group
    assert orders[0] != orders[1]
    met = [{frozenset(batch[:4]) for batch in order} for order in orders]
    assert len(met[0] & met[1]) < len(met[0]) / 2  # another epoch cuts the file elsewhere
    alone = batches(many, 8, seed=0, epoch=0, by_length=by_length)
    assert np.mean([(place + 1) % 999 in batch for batch in alone for place in batch]) < 0.1


def test_evaluation_by_hand():
    made, asked = model(), examples(5, hard=2, seed=4)
    asked = [*asked, asked[0]._replace(positive=asked[1].positive)]  # one query with two right documents
    found = evaluate(made, asked, LOSS, batch_size=4)
    documents = list({every.text: None for each in asked for every in (each.positive, *each.negatives)})
    vectors, queries = made.encode_document(documents), made.encode_query([each.query.text for each in asked[:5]])
    for r_q, r_c in LOSS.groups:
        scores = np.einsum("qrd,ntd->qnrt", queries[:, :r_q], vectors[:, :r_c]).max(axis=3).sum(axis=2)
        values = []
        for place, row in enumerate(scores):
            right = [documents.index(each.positive.text) for each in asked if each.query == asked[place].query]
            ranks = [int((row > row[document]).sum()) for document in right]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(len(right)))
            values.append(sum(1 / np.log2(rank + 2) for rank in ranks if rank < 10) / ideal)
        np.testing.assert_allclose(found[f"({r_q},{r_c})"]["ndcg@10"], np.mean(values), rtol=1e-6)
    asked_vectors, right = (
        torch.tensor(queries[:4]),
        torch.tensor(made.encode_document([each.positive.text for each in asked[:4]])),
    )
    negatives, present = torch.zeros(4, 2, T, 16), torch.zeros(4, 2, dtype=torch.bool)
    for place, each in enumerate(asked[:4]):
        if each.negatives:
            present[place, : len(each.negatives)] = True
            wrong = made.encode_document([every.text for every in each.negatives])
            negatives[place, : len(each.negatives)] = torch.tensor(wrong)
    losses = LOSS.by_group(
        asked_vectors, right, negatives[:, : present.sum(dim=1).max()], present=present[:, : present.sum(dim=1).max()]
    )
    np.testing.assert_allclose([each["loss"] for each in found.values()], losses, rtol=1e-4)


def test_what_is_right_in_another_line_costs_nothing():
    lines = [Example.of("w1", "w2", ["w3"]), Example.of("w1", "w3", ["w2"])]
    for found in evaluate(model(), lines, LOSS).values():
        assert found == {"ndcg@10": 1.0, "loss": 0.0}


def test_bad_runs(tmp_path):
    with pytest.raises(ValueError, match="expected at least 32, a batch of all processes, got 17"):
        train(model(), EXAMPLES)
    with pytest.raises(ValueError, match="neighbours: expected at most 17, the number of examples, got 18"):
        trained(options=replace(OPTIONS, neighbours=18))
    with pytest.raises(ValueError, match="output: expected a folder"):
        trained(resume=True)
    with pytest.raises(ValueError, match="output: expected a folder"):
        trained(options=replace(OPTIONS, save_every=3))
    with pytest.raises(ShapeError, match="groups: expected at most"):
        train(model(), EXAMPLES, OPTIONS, loss=MMRLoss())
    with pytest.raises(ValueError, match="weights with gradients, got none"):
        trained(model().requires_grad_(False))
    made = model()
    with torch.no_grad():
        made.table.meta_tokens.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="at step 1; lower the learning rates"):
        trained(made)
    with pytest.raises(ValueError, match="examples: expected at least one"):
        evaluate(model(), [], LOSS)
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        evaluate(model(), EXAMPLES, LOSS, batch_size=0)


@pytest.mark.parametrize("wrong", [Example("w1", "w2"), Example.of("w1", "w2")._replace(negatives=("w3",)), ("w1", "w2")])
def test_examples_that_nobody_checked(wrong):
    for given in ({"examples": [*EXAMPLES, wrong]}, {"examples": EXAMPLES, "evaluation": [*EXAMPLES, wrong]}):
        with pytest.raises(TypeError, match=rf"^{list(given)[-1]}\[17\]: expected an Example.*make it with Example\.of"):
            train(model(), options=OPTIONS, loss=LOSS, **given)
    with pytest.raises(TypeError, match=r"^examples\[17\]: expected an Example.*make it with Example\.of"):
        evaluate(model(), [*EXAMPLES, wrong], LOSS)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    made = model()
    before = weights(made)
    made.table.meta_tokens.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteError, match=r"gradient: its norm is .* at step 1; lower the learning rates"):
        trained(made, replace(OPTIONS, warmup=0.0))
    assert_equal(weights(made), before)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"epochs": 0}, ValueError),
        ({"batch_size": 2.5}, TypeError),
        ({"steps": 0}, ValueError),
        ({"chunk_size": 0}, ValueError),
        ({"learning_rate": -1e-4}, ValueError),
        ({"learning_rate": float("nan")}, ValueError),
        ({"meta_learning_rate": "fast"}, TypeError),
        ({"warmup": 1.5}, ValueError),
        ({"max_gradient_norm": float("inf")}, ValueError),
        ({"schedule": "steps"}, ValueError),
        ({"seed": -1}, ValueError),
    ],
)
def test_bad_options(option, error):
    with pytest.raises(error, match=f"^{next(iter(option))}: expected"):
        TrainingOptions(**option)
