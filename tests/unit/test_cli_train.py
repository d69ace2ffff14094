"""``metaindex train`` on the command line."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

import torch
from safetensors.torch import load_file, save_file

from metaindex.cli import main
from metaindex.encoders import MetaEmbed
from tests.encoders.tiny import images, tiny

# Of transformers 5, about its own calls.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`max_length` is ignored when:UserWarning"),
]
SMALL = [
    "--query-tokens",
    "2",
    "--doc-tokens",
    "4",
    "--lora-rank",
    "2",
    "--batch-size",
    "2",
    "--log-every",
    "1",
    "--device",
    "cpu",
]


def saved(family, folder):
    made = tiny(family)
    made.backbone.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return folder


def written(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


@pytest.fixture
def asked(tmp_path):
    lines = [
        {"query": f"w{n} w{n + 1}", "positive": f"w{n + 2} w{n + 3}", "negatives": [f"w{n + 9}"][: n % 2]} for n in range(8)
    ]
    data, held_out = written(tmp_path / "data.jsonl", lines), written(tmp_path / "held_out.jsonl", lines[:4])
    backbone = saved("bert", tmp_path / "backbone")
    return ["train", data, "--backbone", str(backbone), "--output", str(tmp_path / "run"), "--evaluate", held_out, *SMALL]


def test_texts(asked, tmp_path, capsys):
    assert (
        main([*asked, "--chunk-size", "2", "--cache-gradients", "--save-every", "2", "--dim", "6", "--query-prompt", "w9 "])
        == 0
    )
    printed = capsys.readouterr()
    assert "4 steps in" in printed.out
    assert "(2,4)" in printed.out
    assert printed.err == ""
    model = MetaEmbed.load(tmp_path / "run" / "model")
    assert model.encode_document(["w1"]).shape == (1, 4, 6)
    assert model.settings()["query_prompt"] == "w9 "
    assert hasattr(model.backbone, "peft_config")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-000004", "log.jsonl", "model"]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 4]


def test_resume_json_and_merge(asked, tmp_path, capsys):
    more = ["--epochs", "2", "--save-every", "3", "--json", "--bf16", "--by-length", "--groups", "1,1 2,4", "--merge"]
    assert main([*asked, *more]) == 0
    first = json.loads(capsys.readouterr().out)
    model = MetaEmbed.load(first["model"])
    assert not hasattr(model.backbone, "peft_config")
    assert first["step"] == 8
    assert set(first["evaluation"]) == {"(1,1)", "(2,4)"}
    assert main([*asked, *more, "--resume"]) == 1
    assert "a trained model stands there already" in capsys.readouterr().err
    (tmp_path / "run" / "model").rename(tmp_path / "first")
    assert main([*asked, *more]) == 1
    assert "something stands there already" in capsys.readouterr().err
    assert main([*asked, *more, "--resume", "--lora-alpha", "7"]) == 1
    assert "resume: expected adapters" in capsys.readouterr().err
    assert main([*asked, *more, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert MetaEmbed.load(tmp_path / "run" / "model").fingerprint == MetaEmbed.load(tmp_path / "first").fingerprint


def test_the_whole_backbone(asked, tmp_path):
    assert main([*asked, "--lora-rank", "0", "--steps", "2"]) == 0
    assert (tmp_path / "run" / "model" / "backbone").is_dir()


def test_what_a_checkpoint_lacks_is_the_same_in_every_process(asked, tmp_path):
    file = tmp_path / "backbone" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: values for name, values in tensors.items() if not name.endswith("intermediate.dense.weight")}, file)
    fingerprints = []
    for process in range(2):
        torch.manual_seed(process)
        folder = tmp_path / f"run {process}"
        assert main([*asked, "--output", str(folder), "--steps", "1", "--merge"]) == 0
        fingerprints.append(MetaEmbed.load(folder / "model").fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_images(tmp_path, capsys):
    backbone = saved("paligemma", tmp_path / "backbone")
    for number, image in enumerate(images(4)):
        image.save(tmp_path / f"{number}.png")
    lines = [{"query": f"w{n}", "positive": {"image": f"{n}.png"}, "negatives": ["w20"][: n % 2]} for n in range(4)]
    data = written(tmp_path / "data.jsonl", lines)
    more = ["--output", str(tmp_path / "run"), "--evaluate", data, "--epochs", "2", "--json"]
    assert main(["train", data, "--backbone", str(backbone), *more, *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4
    model = MetaEmbed.load(tmp_path / "run" / "model")
    assert model.encode_document([images(1)[0]]).shape == (1, 4, 16)


def test_errors_take_one_line(asked, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"query": "q"}\n')
    assert main(asked) == 1
    error = capsys.readouterr().err
    assert "data.jsonl:1: expected a positive" in error
    assert error.count("\n") == 1
    for wrong in (
        ["--learning-rate", "0"],
        ["--groups", "1 2"],
        ["--groups", ""],
        ["--groups", "1,1 2,5"],
        ["--schedule", "steps"],
        ["--warmup", "2"],
        ["--merge", "--lora-rank", "0"],
        ["--device", "nonsense"],
        ["--device", "cuda:99"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*asked, *wrong])
    assert "--device: expected a device that torch finds here, such as cpu, got 'cuda:99'" in capsys.readouterr().err
    evaluate = asked.index("--evaluate")
    with pytest.raises(SystemExit, match="2"):
        main([*asked[:evaluate], *asked[evaluate + 2 :], "--evaluate-every", "2"])
    assert "--evaluate-every: there is nothing to evaluate on" in capsys.readouterr().err
    written(tmp_path / "data.jsonl", [{"query": "w1", "positive": "w2"}])
    assert main([*asked, "--backbone", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_log_that_was_lost_or_torn_stops_nothing(asked, tmp_path, capsys):
    more = ["--save-every", "2", "--json", "--warmup", "0.00"]
    assert main([*asked, *more]) == 0
    first, log = json.loads(capsys.readouterr().out), tmp_path / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"\n", b"\n\0\xff\n", 1) + b'{"step": 4')
    for number, found in enumerate((first, {"model": first["model"]})):
        (tmp_path / "run" / "model").rename(tmp_path / f"model-{number}")
        assert main([*asked, *more, "--resume"]) == 0
        assert {**json.loads(capsys.readouterr().out), "seconds": 0} == {**found, "seconds": 0}
        log.unlink()
