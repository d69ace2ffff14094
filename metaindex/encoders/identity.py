"""Fingerprints of encoders: equal for the same weights and settings, whatever device they are on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

_SAMPLE = 4096  # numbers of one tensor; a model of billions takes well under a second
_DIGITS = 32


def of_module(name: str, module: Any, settings: dict[str, Any]) -> str:
    """Of a torch module with ``settings``, by all of its tensors; see ``of_tensors``."""
    return of_tensors(name, module.state_dict(), settings)


def of_tensors(name: str, tensors: Mapping[str, Any], settings: dict[str, Any]) -> str:
    """A hash over the names and shapes of torch tensors, evenly spaced numbers of each, and ``settings``.

    Numbers are rounded to bfloat16 first, so that a model has one fingerprint in float32 and in bfloat16. In float16 it may
    have another. Poolers are left out: they have no part in vectors of tokens, and checkpoints without one get one at random.
    """
    import torch

    digest = hashlib.sha256(_text(settings))
    with torch.no_grad():
        for key, tensor in sorted(tensors.items()):
            if not isinstance(tensor, torch.Tensor) or "pooler" in key.split("."):
                continue
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, -(-len(flat) // _SAMPLE))]
            if sample.is_floating_point():
                sample = sample.to(torch.bfloat16).float()
            digest.update(sample.cpu().numpy().tobytes())
    return _named(name, digest.hexdigest())


def of_settings(name: str, settings: dict[str, Any]) -> str:
    """Of something without weights that could be read: by its name and settings alone."""
    return _named(name, hashlib.sha256(_text(settings)).hexdigest())


def _text(settings: dict[str, Any]) -> bytes:
    return json.dumps(settings, sort_keys=True, default=str).encode()


def _named(name: str, digest: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:128]}:{digest[:_DIGITS]}"
