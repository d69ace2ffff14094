"""A tiny model and tiny data to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from metaindex.encoders import MetaEmbed
from metaindex.training import Example
from tests.encoders.tiny import SIZES, tokenizer

R, T = 2, 4


def model(dropout: float = 0.0, seed: int = 0, **more: Any) -> MetaEmbed:
    """A BERT with weights large enough to matter."""
    torch.manual_seed(seed)
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = transformers.BertConfig(**SIZES, max_position_embeddings=64, initializer_range=0.2, **drops)
    return MetaEmbed(transformers.BertModel(config, add_pooling_layer=False), tokenizer(), R, T, **more)


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
