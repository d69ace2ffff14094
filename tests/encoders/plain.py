"""MetaEmbed computed plainly: one input at a time, embeddings put together by hand, each family in its own terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from metaindex.encoders import MetaEmbed
from tests.encoders.tiny import Tiny

MARKS = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "paligemma": "<image>", "mllama": "<|image|>"}


def states(family: str, model: MetaEmbed, made: Tiny, text: str, image: Any = None) -> torch.Tensor:
    """Last-layer states [R + T, hidden] of the Meta Tokens."""
    base, table = model.base, model.table.base
    meta = model.table.meta_tokens
    if image is None:
        tokens = getattr(made.processor, "tokenizer", made.processor)(with_start(family, text), return_tensors="pt")
    else:
        tokens = made.processor(text=[MARKS[family] + text], images=[[image]], return_tensors="pt")
    ids = tokens["input_ids"].long()
    length, count = ids.shape[1], len(meta)
    embedded = torch.cat([table(ids), meta[None]], dim=1)
    inputs: dict[str, Any] = {"inputs_embeds": embedded, "attention_mask": torch.ones(1, length + count)}
    if family == "paligemma":
        inputs["token_type_ids"] = torch.zeros(1, length + count, dtype=torch.long)  # all of it sees all of it
    if family == "qwen2_5_vl":
        inputs["position_ids"] = torch.arange(length + count).expand(3, 1, -1)
    if image is not None:
        inputs |= _with_image(family, base, tokens, ids, embedded, count)
    return base(**inputs).last_hidden_state[0, length:]


def with_start(family: str, text: str) -> str:
    return f"<s> {text}" if family in ("qwen2_5_vl", "paligemma") else text


def _with_image(family: str, base: Any, tokens: Any, ids: torch.Tensor, embedded: torch.Tensor, count: int) -> dict[str, Any]:
    if family == "mllama":
        mask = tokens["cross_attention_mask"]
        mask = torch.cat([mask, mask[:, -1:].expand(-1, count, -1, -1)], dim=1)
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        return {"cross_attention_mask": mask} | {name: tokens[name] for name in names}
    grid = [tokens["image_grid_thw"]] if family == "qwen2_5_vl" else []
    seen = base.get_image_features(tokens["pixel_values"], *grid).pooler_output
    vectors = torch.cat(tuple(seen), dim=0).reshape(-1, embedded.shape[-1])
    where = (ids[0] == base.config.image_token_id).nonzero()[:, 0]
    embedded = embedded.clone()
    embedded[0, where] = vectors.to(embedded.dtype)
    if family == "paligemma":
        return {"inputs_embeds": embedded}
    return {"inputs_embeds": embedded, "position_ids": _qwen_positions(tokens, where, ids.shape[1], count)}


def _qwen_positions(tokens: Any, where: torch.Tensor, length: int, count: int) -> torch.Tensor:
    """Time, height and width [3, 1, L]: text counts on, an image spans its grid of merged patches."""
    _, height, width = (tokens["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    start = int(where[0])
    rows, columns = np.divmod(np.arange(height * width), width)
    image = np.stack([np.zeros_like(rows), rows, columns]) + start
    after = start + max(height, width) + np.arange(length - start - height * width + count)
    before = np.arange(start)
    placed = np.concatenate([np.stack([before] * 3), image, np.stack([after] * 3)], axis=1)
    return torch.from_numpy(placed)[:, None]
