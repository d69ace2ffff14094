"""From inputs to what a backbone takes: tokens by its own tokenizer or processor, Meta Tokens behind them, padding last.

Whichever side a tokenizer pads, rows are laid out as ``[content, Meta Tokens, padding]``. So the content begins at position 0
and the Meta Tokens have the positions that follow it in every architecture, no causal mask sees padding, and a row is computed
as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from metaindex.encoders.inputs import Content

# What processors return with one entry for each token of a row. All else belongs to images and passes through.
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask")
_VISION = ("<|vision_start|>", "<|vision_end|>")


def text_of_image(processor: Any) -> str | None:
    """The text that stands for an image where a processor reads it; ``None`` where it takes no images."""
    token = getattr(processor, "image_token", None)
    if token is None or getattr(processor, "image_processor", None) is None:
        return None
    known = tokenizer_of(processor).get_vocab()
    return f"{_VISION[0]}{token}{_VISION[1]}" if all(mark in known for mark in _VISION) else str(token)


def tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def alike(contents: Sequence[Content], size: int) -> Iterator[list[int]]:
    """Places of inputs that share a batch: with and without images apart, of like length together, the longest first."""
    for with_image in (True, False):
        places = [place for place, each in enumerate(contents) if (each.image is not None) == with_image]
        places.sort(key=lambda place: -len(contents[place].text or ""))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def batched(
    processor: Any, contents: Sequence[Content], prompt: str, image_text: str | None, limit: int, ids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What a backbone takes for ``contents``, Meta Tokens ``ids`` behind each, and the rows' lengths without them as
    ``content_lengths``. Else as ``tokenize``."""
    rows, images = tokenize(processor, contents, prompt, image_text, limit)
    batch, lengths = with_meta_tokens(rows, ids, tokenizer_of(processor).pad_token_id or 0)
    return batch | images | {"content_lengths": lengths}


def tokenize(
    processor: Any, contents: Sequence[Content], prompt: str, image_text: str | None, limit: int
) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """For each content what there is per token, without padding, and what there is of all images.

    Texts are cut to ``limit`` tokens. The contents all have an image, or none has.

    Raises:
        ValueError: an image for a processor that takes none, or more than ``limit`` tokens with an image, which can't be cut.
    """
    texts = [prompt + (each.text or "") for each in contents]
    if contents[0].image is None:
        return _texts(processor, texts, limit), {}
    if image_text is None:
        raise ValueError("inputs: this encoder takes texts only, got an image; give MetaEmbed a processor that takes images")
    found = processor(
        text=[image_text + text for text in texts],
        images=[[each.opened()] for each in contents],
        padding=True,
        return_tensors="pt",
    )
    kept = found["attention_mask"].bool()
    per_token = {name: found[name] for name in PER_TOKEN if name in found}
    rows = [{name: values[row][kept[row]] for name, values in per_token.items()} for row in range(len(kept))]
    longest = max(len(row["input_ids"]) for row in rows)
    if longest > limit:
        raise ValueError(
            f"inputs: expected at most {limit} tokens with an image, got {longest}; use smaller images or texts, or raise "
            f"max_length"
        )
    images = {name: values for name, values in found.items() if name not in per_token and name != "labels"}
    return rows, images


def _texts(processor: Any, texts: list[str], limit: int) -> list[dict[str, torch.Tensor]]:
    tokenizer = tokenizer_of(processor)
    options = {"return_token_type_ids": True} if "token_type_ids" in processor.model_input_names else {}
    # Some processors write the first token into their prompts themselves and stop the tokenizer from adding it.
    start = None if processor is tokenizer else tokenizer.bos_token
    if start is not None and tokenizer.bos_token_id not in tokenizer("")["input_ids"]:
        texts = [start + text for text in texts]
    found = tokenizer(texts, truncation=True, max_length=limit, **options)
    names = [name for name in PER_TOKEN if name in found]
    return [{name: torch.tensor(found[name][row], dtype=torch.long) for name in names} for row in range(len(texts))]


def with_meta_tokens(
    rows: Sequence[Mapping[str, torch.Tensor]], ids: torch.Tensor, padding: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One tensor [B, L, ...] of each name, Meta Tokens ``ids`` behind every row, and the rows' lengths without them."""
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch = {}
    for name in rows[0]:
        longer = [torch.cat([row[name], _behind(name, row[name], ids)]) for row in rows]
        fill = padding if name == "input_ids" else 0
        batch[name] = torch.nn.utils.rnn.pad_sequence(longer, batch_first=True, padding_value=fill)
    return batch, lengths


def _behind(name: str, values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """What one row has for its Meta Tokens: they are text, to be attended to, and see the images that the last token sees."""
    if name == "input_ids":
        return ids
    if name == "attention_mask":
        return values.new_ones(len(ids))
    if name == "cross_attention_mask":
        return values[-1:].expand(len(ids), *values.shape[1:])
    return values.new_zeros(len(ids))
