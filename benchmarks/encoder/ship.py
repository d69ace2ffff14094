"""From a trained model to what lies in the package: half as many bytes, and no path of the machine that trained it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from metaindex.encoders.shipped import FOLDER

MOST = 4_000_000  # bytes
BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"


def ship(model: Path) -> None:
    """Write what ``MetaEmbed.save`` wrote at ``model`` to the package, its weights in float16. The model card stays."""
    for part in ("adapter", "processor"):
        shutil.rmtree(FOLDER / part, ignore_errors=True)
        (FOLDER / part).mkdir(parents=True)
    for path in sorted(model.rglob("*")):
        if path.suffix not in (".safetensors", ".json"):
            continue  # a card without a word in it, which peft writes
        target = FOLDER / path.relative_to(model)
        if path.suffix == ".safetensors":
            save_file({name: values.to(torch.float16) for name, values in load_file(path).items()}, target)
        else:
            target.write_text(_without_paths(path))
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{FOLDER.name}: {size:,} bytes")
    if size > MOST:
        raise SystemExit(f"{FOLDER}: expected at most {MOST:,} bytes, got {size:,}")


def _without_paths(path: Path) -> str:
    if path.name == "tokenizer.json":
        return path.read_text(encoding="utf-8")
    record = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "adapter_config.json":
        record["base_model_name_or_path"] = BACKBONE
    if path.name == "metaembed.json":
        record["backbone"]["path"] = BACKBONE
    return json.dumps(record, indent=2) + "\n"
