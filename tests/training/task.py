"""A task whose ceiling is known: documents are sets of words, and a query is the words of one document in another order.

No two documents have the same words, so a model that understood this finds every document first: nDCG is 1 at every budget.
Documents of the evaluation are sets that training never saw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from metaindex.encoders import MetaEmbed
from metaindex.training import Example, MMRLoss, TrainingOptions, evaluate, train
from tests.encoders.tiny import SIZES, tokenizer

R, T = 4, 8
ALL_GROUPS = ((1, 1), (2, 4), (R, T))
_WORDS, _WORDS_OF_ONE, _TRAINED, _HELD_OUT = 40, 4, 4000, 200


def pairs() -> tuple[list[Example], list[Example]]:
    """For training, and for evaluation."""
    rng = np.random.default_rng(0)
    seen: set[frozenset[int]] = set()
    found = []
    while len(found) < _TRAINED + _HELD_OUT:
        words = rng.permutation(_WORDS)[:_WORDS_OF_ONE]
        if frozenset(words) not in seen:
            seen.add(frozenset(words))
            found.append(Example.of(_text(rng.permutation(words)), _text(words)))
    return found[:_TRAINED], found[_TRAINED:]


def untrained(seed: int) -> MetaEmbed:
    torch.manual_seed(seed)
    sizes = SIZES | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    drops = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(**sizes, max_position_embeddings=32, initializer_range=0.1, **drops)
    made = MetaEmbed(transformers.BertModel(config, add_pooling_layer=False), tokenizer(), R, T)
    with torch.no_grad():
        made.table.meta_tokens *= 5  # far apart, so that they can take different parts if nothing is asked of the first ones
    return made


def quality(groups: Any, seed: int, steps: int = 120) -> dict[str, float]:
    """nDCG@10 at every budget after training ``groups``."""
    training, held_out = pairs()
    made = untrained(seed)
    options = TrainingOptions(steps=steps, batch_size=64, learning_rate=3e-3, meta_learning_rate=3e-3, seed=seed)
    train(made, training, options, loss=MMRLoss(groups))
    found = evaluate(made, held_out, MMRLoss(ALL_GROUPS))
    return {group: values["ndcg@10"] for group, values in found.items()}


def _text(words: np.ndarray) -> str:
    return " ".join(f"w{word}" for word in words)
