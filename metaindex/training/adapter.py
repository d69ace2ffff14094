"""LoRA on a backbone, by peft."""

from __future__ import annotations

from typing import Any

from torch import nn

from metaindex.checks import integer
from metaindex.encoders.loading import no_deprecations_of_peft
from metaindex.encoders.meta_tokens import InputTable


def with_lora(backbone: Any, rank: int = 32, alpha: int = 32, dropout: float = 0.0) -> Any:
    """A peft model around a transformers backbone: its weights are frozen, each linear layer that reads text has an adapter.

    These are the projections to queries, keys, values and out of attention, and those of the MLP, as in the paper. Towers for
    images, poolers and heads have none.

    Raises:
        ValueError: there is no such layer, ``rank`` is below 1, or the backbone has an adapter or Meta Tokens already.
    """
    import peft

    if hasattr(backbone, "peft_config"):
        raise ValueError("backbone: it has an adapter already; train that one, or merge it first, with merge_and_unload()")
    base = backbone.base_model
    if any(isinstance(module, InputTable) for module in base.modules()):
        raise ValueError(
            "backbone: it has Meta Tokens already, which this would freeze; first comes the adapter, then MetaEmbed"
        )
    targets = [name for name, module in base.named_modules() if _is_linear(module) and _in_text_layer(name)]
    if not targets:
        raise ValueError(f"backbone: expected linear layers to adapt, found none in {type(base).__name__}")
    config = peft.LoraConfig(
        r=integer("rank", rank),
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        fan_in_fan_out=any(map(_is_transposed, base.modules())),
    )
    with no_deprecations_of_peft():
        return peft.get_peft_model(base, config)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """GPT-2 has linear layers of its own, with weights [in, out]."""
    return type(module).__name__ == "Conv1D"


def _in_text_layer(name: str) -> bool:
    """Repeated layers have a number in their name; what reads images has a name of its own above that."""
    parts = name.split(".")
    return any(part.isdigit() for part in parts) and not any(part.startswith("vis") for part in parts)
