"""Runs that were interrupted, and what they left."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

from metaindex.encoders import MetaEmbed
from metaindex.errors import UnsupportedFormatError
from metaindex.training import MMRLoss, train, with_lora
from metaindex.training import trainer as module
from tests.training.runs import EXAMPLES, HELD_OUT, LOSS, OPTIONS, assert_equal, trained, without_times
from tests.training.tiny import R, T, examples, model


@pytest.mark.parametrize("stop", [2, 4, 6, 8])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(stop, tmp_path, monkeypatch):
    options = replace(OPTIONS, save_every=3)
    expected, log = trained(options=options, evaluation=HELD_OUT, output=tmp_path / "whole")
    step = module._Run._step

    def interrupted(self, number, batch):
        step(self, number, batch)
        if number == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(options=options, evaluation=HELD_OUT, output=tmp_path / "run", resume=True)
    monkeypatch.setattr(module._Run, "_step", step)
    kept = [path.name for path in (tmp_path / "run").glob("checkpoint-*")]
    assert kept == {2: [], 4: ["checkpoint-000003"], 6: ["checkpoint-000006"], 8: ["checkpoint-000008"]}[stop]
    found, log_again = trained(
        model(dropout=0.1, seed=1 if stop > 3 else 0), options, evaluation=HELD_OUT, output=tmp_path / "run", resume=True
    )
    assert_equal(found, expected)
    assert without_times(log_again) == without_times(log)
    written = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert without_times(map(json.loads, written)) == without_times(log)


def test_another_run_is_not_gone_on_with(tmp_path):
    options = replace(OPTIONS, save_every=8)
    trained(options=options, output=tmp_path)
    for change, match in (
        ({"learning_rate": 0.5}, "learning_rate = 0.01"),
        ({"seed": 3}, "seed = 0"),
        ({"epochs": 3}, "epochs = 2"),
    ):
        with pytest.raises(ValueError, match=f"resume: expected {match}"):
            trained(options=replace(options, **change), output=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume: expected examples"):
        train(model(), examples(17, seed=8), options, loss=LOSS, output=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume: expected loss"):
        train(model(), EXAMPLES, options, loss=MMRLoss(((1, 1),)), output=tmp_path, resume=True)
    frozen, shorter = model(), model()
    frozen.base.encoder.requires_grad_(False)
    del shorter.base.encoder.layer[1]
    for other, match in ((frozen, "resume: expected frozen weights"), (shorter, "holds other weights")):
        with pytest.raises(ValueError, match=match):
            trained(other, options, output=tmp_path, resume=True)
    before = tmp_path / "checkpoint-000008" / "state.json"
    state = json.loads(before.read_text())
    del state["told"]["seed"]
    before.write_text(json.dumps(state))  # as an earlier version may have left it
    trained(options=replace(options, log_every=5, save_every=2), output=tmp_path, resume=True)  # how often one looks may change


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint(name, tmp_path):
    options = replace(OPTIONS, epochs=1, save_every=4)
    trained(options=options, output=tmp_path)
    (tmp_path / "checkpoint-000004" / name).write_bytes(b"{")
    with pytest.raises(UnsupportedFormatError, match=r"checkpoint-000004: can't be read.*remove it to start anew"):
        trained(options=options, output=tmp_path, resume=True)


@pytest.mark.parametrize("missing", ["step", "told", "scheduler"])
def test_a_checkpoint_that_lacks_something(missing, tmp_path):
    options = replace(OPTIONS, epochs=1, save_every=4)
    trained(options=options, output=tmp_path)
    file = tmp_path / "checkpoint-000004" / "state.json"
    state = json.loads(file.read_text())
    del state[missing]
    file.write_text(json.dumps(state))
    with pytest.raises(UnsupportedFormatError, match=f"can't be read as a checkpoint \\('{missing}'\\)"):
        trained(options=options, output=tmp_path, resume=True)


def test_an_adapter_goes_on_with_its_own_backbone(tmp_path):
    def adapted(seed):
        made = model(seed=seed)
        made.base.set_input_embeddings(made.table.base)
        return MetaEmbed(with_lora(made.backbone, rank=2), made.processor, R, T)

    options = replace(OPTIONS, epochs=1, save_every=4)
    trained(adapted(0), options, output=tmp_path)
    with pytest.raises(ValueError, match="resume: expected frozen weights = 'weights:"):
        trained(adapted(1), options, output=tmp_path, resume=True)
    trained(adapted(0), options, output=tmp_path, resume=True)


def test_what_others_call_a_checkpoint_is_left_alone(tmp_path):
    for name in ("checkpoint-500", "checkpoint-000001", "checkpoint-best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-notes.txt").write_text("mine")
    others = set(tmp_path.iterdir())
    options = replace(OPTIONS, epochs=1, save_every=2)
    expected, _ = trained(options=options, output=tmp_path, resume=True)
    assert set(tmp_path.iterdir()) == others | {tmp_path / "checkpoint-000004", tmp_path / "log.jsonl"}
    found, log = trained(model(dropout=0.1, seed=1), options, output=tmp_path, resume=True)
    assert_equal(found, expected)
    assert [line["step"] for line in log] == [1, 2, 3, 4]


def test_the_last_checkpoint_is_that_of_the_last_step(tmp_path):
    for step in (999_999, 1_000_000):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "state.json").write_text("{")
    with pytest.raises(UnsupportedFormatError, match="checkpoint-1000000: can't be read"):
        trained(options=replace(OPTIONS, save_every=4), output=tmp_path, resume=True)


def test_a_checkpoint_is_removed_when_the_next_one_is_on_disk(tmp_path, monkeypatch):
    done, fsync, rmtree = [], os.fsync, shutil.rmtree
    monkeypatch.setattr(os, "fsync", lambda number: done.append(os.fstat(number).st_ino) or fsync(number))
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: done.append(path) or rmtree(path, **options))
    trained(options=replace(OPTIONS, epochs=1, save_every=2), output=tmp_path)
    kept = tmp_path / "checkpoint-000004"
    *written, removed = done
    assert removed == tmp_path / "checkpoint-000002"
    assert {each.stat().st_ino for each in (tmp_path, kept, *kept.iterdir())} <= set(written)
