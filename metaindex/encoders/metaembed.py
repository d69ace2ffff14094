"""MetaEmbed: a transformer whose last states of appended Meta Tokens are the embedding (arXiv 2509.18095)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metaindex.checks import integer
from metaindex.encoders import identity
from metaindex.encoders.batches import PER_TOKEN, alike, batched, text_of_image, tokenizer_of
from metaindex.encoders.inputs import Content, contents
from metaindex.encoders.meta_tokens import attach, selected
from metaindex.errors import MissingDependencyError

Side = Literal["query", "document"]
_LONGEST = 1 << 20  # tokenizers without a limit say 10**30


class MetaEmbed(nn.Module):
    """Meta Tokens on a Hugging Face backbone: ``[content, query tokens, document tokens]``.

    A query's vectors are the last-layer states of the query tokens, a document's those of the document tokens, L2-normalised; a
    state of zeros stays zero. Both sets of tokens stand behind every input, as in the paper. They begin at random: until
    trained with Matryoshka Multi-Vector Retrieval they mean nothing.

    Args:
        backbone: a transformers model, text or vision-language (of one with a head the model below it is used), or a peft model
            around one. It is changed in place: its input embeddings get the Meta Tokens.
        processor: the backbone's tokenizer, or the processor that also takes its images.
        query_tokens, doc_tokens: R and T, how many Meta Tokens each side has.
        dim: d of a linear projection behind the backbone, without bias; by default there is none and d is the hidden size.
        query_prompt, document_prompt: text in front of every query's and document's text.
        image_text: the text that stands for an image in the processor's language; by default the processor's image token,
            between vision marks where the vocabulary has them. It comes before the prompt.
        max_length: the most tokens of content; longer texts are cut. By default what the backbone has positions for.

    Raises:
        ValueError: the backbone has Meta Tokens already, or no room for them and any content; or the processor takes images and
            can't pad.
    """

    nested = True

    def __init__(
        self,
        backbone: Any,
        processor: Any,
        query_tokens: int = 16,
        doc_tokens: int = 64,
        dim: int | None = None,
        *,
        query_prompt: str = "",
        document_prompt: str = "",
        image_text: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        self.query_tokens, self.doc_tokens = integer("query_tokens", query_tokens), integer("doc_tokens", doc_tokens)
        self.prompts: dict[str, str] = {"query": query_prompt, "document": document_prompt}
        self.processor = processor
        self.image_text = text_of_image(processor) if image_text is None else image_text
        if self.image_text is not None and tokenizer_of(processor).pad_token is None:
            raise ValueError(
                "processor: expected a tokenizer with a pad_token, which images need, got none; set it to its eos_token"
            )
        is_peft = hasattr(backbone, "peft_config") and hasattr(backbone, "get_base_model")
        self.backbone: Any = backbone if is_peft else backbone.base_model
        base = self.base
        config = base.config.get_text_config()
        room = min(tokenizer_of(processor).model_max_length, getattr(config, "max_position_embeddings", _LONGEST), _LONGEST)
        room -= self.query_tokens + self.doc_tokens
        if room < 1:
            raise ValueError(
                f"query_tokens, doc_tokens: expected fewer than the backbone's {room + self.query_tokens + self.doc_tokens} "
                f"positions, got {self.query_tokens} and {self.doc_tokens}"
            )
        self.room = room
        self.max_length = room if max_length is None else integer("max_length", max_length, most=room)
        self.table = attach(base, self.query_tokens + self.doc_tokens)
        hidden, like = config.hidden_size, self.table.weight
        self.projection = (
            None if dim is None else nn.Linear(hidden, integer("dim", dim), bias=False, device=like.device, dtype=like.dtype)
        )
        self.dim: int = hidden if dim is None else dim
        self.train(backbone.training)

    @property
    def base(self) -> Any:
        """The transformers model without head and peft's wrapper around it, adapters included."""
        if hasattr(self.backbone, "get_base_model"):
            return self.backbone.get_base_model().base_model
        return self.backbone

    @property
    def device(self) -> torch.device:
        return self.table.meta_tokens.device

    @property
    def fingerprint(self) -> str:
        """A name for these weights and settings, the same in float32 and bfloat16."""
        return identity.of_module("MetaEmbed", self, self.settings())

    def settings(self) -> dict[str, Any]:
        """What the constructor was told, beside backbone and processor."""
        return {
            "query_tokens": self.query_tokens,
            "doc_tokens": self.doc_tokens,
            "dim": None if self.projection is None else self.dim,
            "query_prompt": self.prompts["query"],
            "document_prompt": self.prompts["document"],
            "image_text": self.image_text,
            "max_length": self.max_length,
        }

    def encode_query(
        self, inputs: Sequence[Any], batch_size: int = 32, *, progress: bool = False, convert_to_tensor: bool = False
    ) -> Any:
        """The vectors [N, R, d] of queries, float32: numpy, or a torch tensor on the model's device.

        Args:
            inputs: a list of texts, images (PIL or ``pathlib.Path``), or dicts with "text" and "image".
            progress: draw a bar on stderr where that is a terminal.

        Raises:
            TypeError, ValueError: an input is neither, or an image where the backbone takes none.
        """
        return self._encode(inputs, "query", batch_size, progress, convert_to_tensor)

    def encode_document(
        self, inputs: Sequence[Any], batch_size: int = 32, *, progress: bool = False, convert_to_tensor: bool = False
    ) -> Any:
        """The vectors [N, T, d] of documents; else as ``encode_query``."""
        return self._encode(inputs, "document", batch_size, progress, convert_to_tensor)

    def batch(self, inputs: Sequence[Any], side: Side) -> dict[str, Any]:
        """What ``forward`` takes, on the model's device, of at least one input. All have an image, or none has. Raises as
        ``encode_query``."""
        checked = contents(inputs)
        if not checked:
            raise ValueError("inputs: expected at least one, got none")
        return self._batch(checked, side)

    def forward(self, batch: dict[str, Any], side: Side) -> torch.Tensor:
        """The vectors of a ``batch`` made for ``side``: float32 [B, R, d] or [B, T, d], with gradients."""
        inputs = dict(batch)
        starts = inputs.pop("content_lengths")
        states = self.base(**inputs, use_cache=False).last_hidden_state
        first, count = (0, self.query_tokens) if side == "query" else (self.query_tokens, self.doc_tokens)
        return selected(states, starts, first, count, self.projection)

    def content(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the backbone alone makes of a ``batch``: the last-layer states of its content, without adapter and Meta Tokens.

        They go through the projection and are L2-normalised as the vectors are: float32 [B, L, d], without gradients. The
        second tensor, bool [B, L], is where a row has a token that the tokenizer did not add by itself; of an empty text
        it is wherever there is one.

        Raises:
            ValueError: the backbone has no adapter, so nothing is left of what it was before training.
        """
        if not hasattr(self.backbone, "peft_config"):
            raise ValueError("backbone: expected one with an adapter, got none; metaindex.training.with_lora adds one")
        inputs = dict(batch)
        lengths = inputs.pop("content_lengths").to(self.device)
        inputs |= {name: values[:, : int(lengths.max())] for name, values in inputs.items() if name in PER_TOKEN}
        present = torch.arange(inputs["input_ids"].shape[1], device=self.device) < lengths[:, None]
        inputs["attention_mask"] = inputs["attention_mask"] * present
        with torch.no_grad(), self.backbone.disable_adapter(), self._evaluating():
            states = self.base(**inputs, use_cache=False).last_hidden_state
            if self.projection is not None:
                states = self.projection(states)
        said = present & ~torch.isin(inputs["input_ids"], self._added.to(self.device))
        return nn.functional.normalize(states.float(), dim=-1), torch.where(said.any(dim=1, keepdim=True), said, present)

    @property
    def _added(self) -> torch.Tensor:
        """Ids that tokenizers put around a text."""
        tokenizer = tokenizer_of(self.processor)
        ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return torch.tensor([each for each in ids if each is not None])

    def save(self, path: str | os.PathLike[str], *, merge: bool = False) -> None:
        """Write a new folder that ``load`` reads: safetensors and JSON, nothing that could run code.

        The Meta Tokens and the projection are always in it. Of a peft model the adapter is, and not the backbone; with
        ``merge`` the adapter is added to a copy of the backbone, and that is saved.

        Raises:
            FileExistsError: something stands at ``path``. ValueError: ``merge`` without a peft model.
        """
        from metaindex.encoders.saving import save

        save(self, path, merge=merge)

    def to_sentence_transformers(self) -> Any:
        """This model as a ``MultiVectorEncoder`` of sentence-transformers, whose modules share its weights.

        Its ``save_pretrained`` writes a checkpoint of that library, of a peft model the backbone with the adapter added; see
        ``metaindex.encoders.sentence_transformers``.

        Raises:
            MissingDependencyError: sentence-transformers is not installed, or older than version 6.
        """
        try:
            from metaindex.encoders.sentence_transformers import multi_vector_encoder
        except ImportError as error:
            raise MissingDependencyError(
                f"this needs sentence-transformers 6 or later ({error}): pip install 'sentence-transformers>=6'"
            ) from None
        return multi_vector_encoder(self)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Any = None,
        merge: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> MetaEmbed:
        """What ``save`` wrote.

        Args:
            backbone: for an adapter, the model that it belongs to, or its path; by default the path where it was loaded from.
            merge: add an adapter to the backbone, which is faster and can't be trained as an adapter any more. The vectors are
                the same but for rounding; the fingerprint is another one, of other weights.
            device: where to put the model; the CPU by default. dtype: of its weights; as saved by default.

        Raises:
            ValueError: ``merge`` or ``backbone`` without an adapter. FileNotFoundError: there is nothing.
            UnsupportedFormatError: it was not written by ``save``, or by a later version.
        """
        from metaindex.encoders.saving import load

        return load(cls, path, backbone=backbone, merge=merge, device=device, dtype=dtype)

    def _batch(self, inputs: Sequence[Content], side: Side) -> dict[str, Any]:
        batch = batched(self.processor, inputs, self.prompts[side], self.image_text, self.max_length, self.table.ids)
        device, dtype = self.device, self.table.weight.dtype
        return {
            name: values.to(device, dtype) if values.is_floating_point() else values.to(device)
            for name, values in batch.items()
        }

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Nothing is dropped meanwhile."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _encode(self, inputs: Sequence[Any], side: Side, batch_size: int, progress: bool, as_tensor: bool) -> Any:
        checked, size = contents(inputs), integer("batch_size", batch_size)
        count = self.query_tokens if side == "query" else self.doc_tokens
        found = torch.empty(len(checked), count, self.dim, device=self.device if as_tensor else "cpu")
        with torch.inference_mode(), self._evaluating():
            for places in _in_batches(checked, size, progress):
                vectors = self(self._batch([checked[place] for place in places], side), side)
                found[torch.tensor(places, device=found.device)] = vectors.to(found.device)
        if as_tensor:
            return found
        array: NDArray[np.float32] = found.numpy()
        return array


def _in_batches(inputs: Sequence[Content], size: int, progress: bool) -> Any:
    """Places of inputs that share a batch, under a bar."""
    from tqdm.auto import tqdm

    with tqdm(total=len(inputs), unit="input", disable=None if progress else True) as bar:
        for places in alike(inputs, size):
            yield places
            bar.update(len(places))
