"""MetaEmbed as modules of sentence-transformers, so that its ``MultiVectorEncoder`` encodes, trains, saves and loads one.

```
folder/
  modules.json, config_sentence_transformers.json   which modules there are; prompts and the similarity
  config.json, model.safetensors, tokenizer...      backbone and processor, as transformers saves them
  meta_tokens.json, meta_tokens.safetensors         AppendMetaTokens: its settings, and the table [R + T, hidden]
  1_SelectMetaTokens/                               R, T, and the projection where there is one
  2_NestedBudget/                                   the budget
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import InputModule, Module
from torch import nn

from metaindex.checks import integer
from metaindex.encoders.batches import batched, tokenizer_of
from metaindex.encoders.inputs import contents
from metaindex.encoders.meta_tokens import selected
from metaindex.encoders.metaembed import MetaEmbed
from metaindex.encoders.saving import merged, named_class, without_meta_tokens
from metaindex.errors import UnsupportedFormatError
from metaindex.types import Budget

_LENGTHS = "content_lengths"
_WEIGHTS = "meta_tokens.safetensors"
_PROJECTION = "projection.safetensors"


def multi_vector_encoder(model: MetaEmbed) -> MultiVectorEncoder:
    """See ``MetaEmbed.to_sentence_transformers``."""
    sizes = {"query_tokens": model.query_tokens, "doc_tokens": model.doc_tokens}
    selecting = SelectMetaTokens(**sizes, projection=model.projection)
    modules: list[nn.Module] = [AppendMetaTokens(model), selecting, NestedBudget(**sizes)]
    made = MultiVectorEncoder(
        modules=modules,
        prompts=dict(model.prompts),
        similarity_fn_name="maxsim",
        device=str(model.device),
        local_files_only=True,  # a model card would ask a hub about the backbone
    )
    return made.train(model.training)


def _place(subfolder: str, token: bool | str | None, revision: str | None, local_files_only: bool) -> dict[str, Any]:
    """Where a checkpoint lies, as both libraries name it; the folder of caches has a name in each."""
    return {"subfolder": subfolder, "token": token, "revision": revision, "local_files_only": local_files_only}


class AppendMetaTokens(InputModule):
    """Inputs to last-layer states: Meta Tokens behind the content, all of it through the backbone.

    ``metaembed``: whose backbone, processor and Meta Tokens these are. In a whole model it has the projection of
    ``SelectMetaTokens`` and encodes as the model does.
    """

    config_file_name = "meta_tokens.json"

    def __init__(self, metaembed: MetaEmbed) -> None:
        super().__init__()
        self.metaembed = metaembed

    @property
    def processor(self) -> Any:
        return self.metaembed.processor

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        return tokenizer_of(self.processor)

    @property
    def modalities(self) -> list[Any]:
        return ["text"] if self.metaembed.image_text is None else ["text", "image", ("image", "text")]

    @property
    def max_seq_length(self) -> int:
        """The most tokens of content; longer texts are cut."""
        return self.metaembed.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.metaembed.max_length = integer("max_seq_length", value, most=self.metaembed.room)

    def get_embedding_dimension(self) -> int:
        """d of the whole model, which asks its modules from the last to the first."""
        return self.metaembed.dim

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, max_length: int | None = None, **options: Any
    ) -> dict[str, Any]:
        """What ``forward`` takes, on the CPU. ``inputs`` are texts, images or dicts of both, as ``MetaEmbed`` takes them.

        Raises:
            TypeError, ValueError: an input is none of these; or some have an image and some have none.
        """
        checked = contents(inputs)
        if len({each.image is None for each in checked}) > 1:
            raise ValueError("inputs: expected all of one batch with an image or none, got both; encode them apart")
        model = self.metaembed
        limit = model.max_length if max_length is None else min(max_length, model.max_length)
        return batched(self.processor, checked, prompt or "", model.image_text, limit, model.table.ids)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds the states [B, L, hidden] as ``token_embeddings``."""
        dtype = self.metaembed.table.weight.dtype
        # A trainer adds more to it, such as the task.
        tensors = {name: values for name, values in features.items() if isinstance(values, torch.Tensor) and name != _LENGTHS}
        given = {name: values.to(dtype) if values.is_floating_point() else values for name, values in tensors.items()}
        return features | {"token_embeddings": self.metaembed.base(**given, use_cache=False).last_hidden_state}

    def on_model_ready(self, model: Any) -> None:
        selecting = [module for module in model.children() if isinstance(module, SelectMetaTokens)]
        if selecting:
            self.metaembed.projection = selecting[0].projection
            self.metaembed.dim = selecting[0].dim or int(self.metaembed.table.weight.shape[1])
        self.metaembed.prompts = {side: model.prompts.get(side) or "" for side in ("query", "document")}

    def fingerprint_in(self, model: Any) -> str | None:
        """The fingerprint of ``metaembed`` where ``model`` encodes and scores as it does; else ``None``."""
        own = (AppendMetaTokens, SelectMetaTokens, NestedBudget)
        prompts = {side: model.prompts.get(side) for side in ("query", "document")}
        same = tuple(map(type, model.children())) == own and prompts == self.metaembed.prompts
        return self.metaembed.fingerprint if same and model.similarity_fn_name == "maxsim" else None

    def get_config_dict(self) -> dict[str, Any]:
        settings = self.metaembed.settings()
        kept = {name: settings[name] for name in ("query_tokens", "doc_tokens", "image_text", "max_length")}
        return {"backbone": type(self.metaembed.base).__name__, **kept}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Safetensors and JSON, whatever ``safe_serialization`` says."""
        model = self.metaembed
        with without_meta_tokens(model):
            merged(model.backbone).save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
        save_file({"meta_tokens": model.table.meta_tokens.detach().cpu().contiguous()}, Path(output_path) / _WEIGHTS)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **options: Any,
    ) -> AppendMetaTokens:
        """What ``save`` wrote, on this machine or a hub.

        Raises:
            UnsupportedFormatError: it did not write this, or this version of transformers lacks the backbone's class.
            ValueError: another ``backend`` than torch.
        """
        import transformers

        if backend != "torch":
            raise ValueError(f"backend: expected 'torch', the only one with Meta Tokens, got {backend!r}")
        place = _place(subfolder, token, revision, local_files_only)
        settings = cls.load_config(model_name_or_path, cache_folder=cache_folder, **place)
        weights = cls.load_file_path(model_name_or_path, _WEIGHTS, cache_folder=cache_folder, **place)
        if weights is None or "backbone" not in settings:
            raise UnsupportedFormatError(
                f"{model_name_or_path}: it has no {cls.config_file_name} and {_WEIGHTS} of a MetaEmbed"
            )
        known = named_class(cls.config_file_name, settings.pop("backbone"))
        place["cache_dir"] = cache_folder
        backbone = known.from_pretrained(model_name_or_path, use_safetensors=True, **place, **(model_kwargs or {}))
        auto: Any = transformers.AutoProcessor
        processor = auto.from_pretrained(model_name_or_path, **place, **(processor_kwargs or {}))
        model = MetaEmbed(backbone, processor, **settings)
        with torch.no_grad():
            model.table.meta_tokens.copy_(load_file(weights)["meta_tokens"])
        return cls(model)


class SelectMetaTokens(Module):
    """The vectors of a query or a document: the states of its Meta Tokens, projected, L2-normalised, float32.

    Args:
        query_tokens, doc_tokens: R and T. hidden, dim: of a projection without bias; or give ``projection`` itself.
    """

    forward_kwargs = {"task"}
    config_keys = ["query_tokens", "doc_tokens", "hidden", "dim"]

    def __init__(
        self, query_tokens: int, doc_tokens: int, hidden: int | None = None, dim: int | None = None, *, projection: Any = None
    ) -> None:
        super().__init__()
        self.query_tokens, self.doc_tokens = integer("query_tokens", query_tokens), integer("doc_tokens", doc_tokens)
        if hidden is not None and dim is not None:
            projection = nn.Linear(hidden, dim, bias=False)
        self.projection: nn.Linear | None = projection
        self.hidden: int | None = None if projection is None else projection.in_features
        self.dim: int | None = None if projection is None else projection.out_features

    def forward(self, features: dict[str, Any], task: str | None = None, **options: Any) -> dict[str, Any]:
        """``token_embeddings`` [B, L, hidden] become [B, R, d] of queries; of anything else, documents, [B, T, d]."""
        first, count = (0, self.query_tokens) if task == "query" else (self.query_tokens, self.doc_tokens)
        vectors = selected(features["token_embeddings"], features[_LENGTHS], first, count, self.projection)
        return features | {"token_embeddings": vectors, "attention_mask": vectors.new_ones(vectors.shape[:2], dtype=torch.bool)}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Safetensors and JSON, whatever ``safe_serialization`` says."""
        self.save_config(output_path)
        if self.projection is not None:
            save_file(
                {name: values.detach().cpu().contiguous() for name, values in self.state_dict().items()},
                Path(output_path) / _PROJECTION,
            )

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **options: Any,
    ) -> SelectMetaTokens:
        """What ``save`` wrote. Raises UnsupportedFormatError: the projection is missing."""
        place = _place(subfolder, token, revision, local_files_only)
        module = cls(**cls.load_config(model_name_or_path, cache_folder=cache_folder, **place))
        if module.projection is not None:
            weights = cls.load_file_path(model_name_or_path, _PROJECTION, cache_folder=cache_folder, **place)
            if weights is None:
                raise UnsupportedFormatError(f"{model_name_or_path}/{subfolder}: it has no {_PROJECTION}")
            module.load_state_dict(load_file(weights))
        return module


class NestedBudget(Module):
    """The first ``r_q`` vectors of a query and the first ``r_c`` of a document: every prefix is an embedding of its own.

    Args:
        query_tokens, doc_tokens: R and T.
        budget: ``(r_q, r_c)``, one number for both sides, or ``None`` for everything, as ``MetaIndex.search`` takes it. It can
            be set later as ``budget``, or given for one call: ``model.encode_document(texts, budget=8)``.
    """

    nested = True
    forward_kwargs = {"task", "budget"}
    config_keys = ["query_tokens", "doc_tokens", "budget"]

    def __init__(self, query_tokens: int, doc_tokens: int, budget: int | tuple[int, int] | None = None) -> None:
        super().__init__()
        self.query_tokens, self.doc_tokens = integer("query_tokens", query_tokens), integer("doc_tokens", doc_tokens)
        self.budget = budget

    @property
    def budget(self) -> Budget:
        return self._budget

    @budget.setter
    def budget(self, budget: int | tuple[int, int] | None) -> None:
        self._budget = Budget.resolve(budget, self.query_tokens, self.doc_tokens)

    def forward(
        self, features: dict[str, Any], task: str | None = None, budget: int | tuple[int, int] | None = None, **options: Any
    ) -> dict[str, Any]:
        used = self.budget if budget is None else Budget.resolve(budget, self.query_tokens, self.doc_tokens)
        kept = used.r_q if task == "query" else used.r_c
        return features | {name: features[name][:, :kept] for name in ("token_embeddings", "attention_mask")}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        self.save_config(output_path)
