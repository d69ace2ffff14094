"""Training with Matryoshka Multi-Vector Retrieval: every budget of a ``MetaEmbed`` becomes a good embedding.

``train(model, read_examples("pairs.jsonl"))`` is all of it; ``MMRLoss`` is the loss alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metaindex.errors import MissingDependencyError
from metaindex.training.examples import Example, read_examples
from metaindex.training.options import TrainingOptions

if TYPE_CHECKING:
    from metaindex.training.adapter import with_lora
    from metaindex.training.evaluating import evaluate
    from metaindex.training.loss import GROUPS, MMRLoss, groups_of
    from metaindex.training.trainer import train

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

_MODULES = {"with_lora": "adapter", "evaluate": "evaluating", "GROUPS": "loss", "MMRLoss": "loss", "groups_of": "loss"}
_MODULES |= {"train": "trainer"}


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"metaindex.training.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"training needs the package {error.name}, which is not installed: pip install 'metaindex[train]'"
        ) from None
