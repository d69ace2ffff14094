"""Training with Matryoshka Multi-Vector Retrieval: every budget of a ``MetaEmbed`` becomes a good embedding.

``train(model, read_examples("pairs.jsonl"))`` is all of it; ``MMRLoss`` is the loss alone.
"""

from __future__ import annotations

from metaindex.errors import MissingDependencyError

try:
    from metaindex.training.adapter import with_lora
    from metaindex.training.evaluating import evaluate
    from metaindex.training.examples import Example, read_examples
    from metaindex.training.loss import GROUPS, MMRLoss, groups_of
    from metaindex.training.options import TrainingOptions
    from metaindex.training.trainer import train
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"training needs the package {error.name}, which is not installed: pip install 'metaindex[train]'"
    ) from None

__all__ = [
    "GROUPS",
    "Example",
    "MMRLoss",
    "TrainingOptions",
    "evaluate",
    "groups_of",
    "read_examples",
    "train",
    "with_lora",
]
