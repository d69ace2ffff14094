"""From a trained model to what lies in the package: half as many bytes, and no path of the machine that trained it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from metaindex.encoders.shipped import FOLDER

MOST = 4_000_000  # bytes
CARD = "README.md"
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"


def ship(model: Path) -> None:
    """Write what ``MetaEmbed.save`` wrote at ``model`` to the package, its weights in float16. The model card stays."""
    if not (model / "adapter").is_dir():
        raise SystemExit(f"{model}: no model with an adapter stands there; train it first")
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / FOLDER.name
        _pack(model, packed)
        if (FOLDER / CARD).exists():
            shutil.copy(FOLDER / CARD, packed)
        size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
        if size > MOST:
            raise SystemExit(f"{model}: expected at most {MOST:,} bytes when packed, got {size:,}")
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(packed, FOLDER)
    print(f"{FOLDER.name}: {size:,} bytes")


def _pack(model: Path, folder: Path) -> None:
    for path in sorted(model.rglob("*")):
        target = folder / path.relative_to(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file({name: values.to(torch.float16) for name, values in load_file(path).items()}, target)
            target.chmod(0o644)  # it is written for its owner only
        elif path.suffix == ".json":  # all else is a card without a word in it, which peft writes
            target.write_text(_without_paths(path), encoding="utf-8")


def _without_paths(path: Path) -> str:
    if path.name == "tokenizer.json":
        return path.read_text(encoding="utf-8")
    record = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "adapter_config.json":
        record["base_model_name_or_path"] = BACKBONE
    if path.name == "metaembed.json":
        record["backbone"]["path"] = BACKBONE
    return json.dumps(record, indent=2) + "\n"
