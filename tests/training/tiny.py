"""A tiny model and tiny data to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from metaindex.encoders import MetaEmbed
from metaindex.training import Example, with_lora
from tests.encoders.tiny import SIZES, tokenizer

R, T = 2, 4


def model(
    dropout: float = 0.0, seed: int = 0, *, adapter: bool = False, dtype: torch.dtype = torch.float32, **more: Any
) -> MetaEmbed:
    """A BERT with weights large enough to matter, and maybe an adapter that matters."""
    torch.manual_seed(seed)
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = transformers.BertConfig(**SIZES, max_position_embeddings=64, initializer_range=0.2, **drops)
    backbone: Any = transformers.BertModel(config, add_pooling_layer=False).to(dtype)
    if adapter:
        backbone = with_lora(backbone, rank=2)
        for name, each in backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(each, std=0.2)
    return MetaEmbed(backbone, tokenizer(), R, T, **more)


def text(rng: np.random.Generator, most: int = 8) -> str:
    return " ".join(f"w{number}" for number in rng.integers(53, size=rng.integers(1, most + 1)))


def examples(count: int, hard: int = 0, seed: int = 0) -> list[Example]:
    """Texts of random words, and up to ``hard`` negatives."""
    rng = np.random.default_rng(seed)
    return [
        Example.of(text(rng), text(rng), [text(rng) for _ in range(rng.integers(hard + 1))] if hard else [])
        for _ in range(count)
    ]


def gradients(made: MetaEmbed) -> dict[str, np.ndarray]:
    return {name: each.grad.numpy().copy() for name, each in made.named_parameters() if each.grad is not None}


def weights(made: MetaEmbed) -> dict[str, np.ndarray]:
    return {name: each.detach().numpy().copy() for name, each in made.named_parameters()}
