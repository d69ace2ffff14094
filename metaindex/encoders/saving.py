"""MetaEmbed on disk.

```
folder/
  metaembed.json          settings and what the backbone is; written last
  metaembed.safetensors   meta_tokens [R + T, hidden] and, where there is one, projection [d, hidden]
  backbone/ or adapter/   as transformers or peft save them, weights in safetensors
  processor/              the tokenizer or processor
```
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from metaindex.encoders.loading import no_deprecations_of_peft
from metaindex.errors import MissingDependencyError, UnsupportedFormatError

if TYPE_CHECKING:
    from metaindex.encoders.metaembed import MetaEmbed

FORMAT = 1
_SETTINGS, _WEIGHTS, _BACKBONE, _ADAPTER, _PROCESSOR = (
    "metaembed.json",
    "metaembed.safetensors",
    "backbone",
    "adapter",
    "processor",
)


def save(model: MetaEmbed, path: str | os.PathLike[str], *, merge: bool) -> None:
    """See ``MetaEmbed.save``."""
    is_peft = hasattr(model.backbone, "peft_config")
    if merge and not is_peft:
        raise ValueError("merge: expected a MetaEmbed around a peft model, got one without an adapter; save it without merge")
    folder = Path(path)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder}: something stands there already; choose another path or remove it")
    staging = folder.with_name(f".{folder.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write(model, staging, adapter=is_peft and not merge)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _write(model: MetaEmbed, folder: Path, *, adapter: bool) -> None:
    record: dict[str, Any] = {"format": FORMAT, "settings": model.settings()}
    with without_meta_tokens(model):
        if adapter:
            model.backbone.save_pretrained(folder / _ADAPTER, safe_serialization=True)
            below = model.backbone.get_base_model()
            record["backbone"] = {"class": type(below).__name__, "path": str(below.config.name_or_path)}
        else:
            whole = merged(model.backbone)
            whole.save_pretrained(folder / _BACKBONE, safe_serialization=True)
            record["backbone"] = {"class": type(whole).__name__}
    model.processor.save_pretrained(folder / _PROCESSOR)
    weights = {"meta_tokens": model.table.meta_tokens.detach()}
    if model.projection is not None:
        weights["projection"] = model.projection.weight.detach()
    save_file({name: values.cpu().contiguous() for name, values in weights.items()}, folder / _WEIGHTS)
    (folder / _SETTINGS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@contextmanager
def without_meta_tokens(model: Any) -> Iterator[None]:
    """The backbone as its own library made it, whose names of weights are what that library reads.

    ``model``: with ``base``, the transformers model, and ``table``, its ``InputTable``.
    """
    base = model.base
    base.set_input_embeddings(model.table.base)
    try:
        yield
    finally:
        base.set_input_embeddings(model.table)


def merged(backbone: Any) -> Any:
    """Of a peft model a copy of its backbone with the adapter added to it; any other as it is."""
    return added(copy.deepcopy(backbone)).base_model if hasattr(backbone, "peft_config") else backbone


def added(backbone: Any) -> Any:
    """The backbone of a peft model with the adapter added to it, in place, and all of it to be trained.

    In float64, which rounds to the same weights in whatever order a machine adds: their hash is the fingerprint.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [layer for layer in backbone.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        dtype = layer.get_base_layer().weight.dtype
        layer.double()
        layer.merge()
        layer.to(dtype)
    return backbone.unload().requires_grad_()


def load(
    cls: type[MetaEmbed], path: str | os.PathLike[str], *, backbone: Any, merge: bool, device: Any, dtype: torch.dtype | None
) -> MetaEmbed:
    """See ``MetaEmbed.load``."""
    folder = Path(path)
    record = _record(folder)
    import transformers

    auto: Any = transformers.AutoProcessor
    processor = auto.from_pretrained(folder / _PROCESSOR, local_files_only=True)
    if (folder / _ADAPTER).is_dir():
        with no_deprecations_of_peft():
            found = _with_adapter(folder, record["backbone"], backbone)
            found = added(found) if merge else found
    elif merge:
        raise ValueError(f"merge: expected a folder with an adapter, {folder} holds a whole backbone; load it without merge")
    elif backbone is not None:
        raise ValueError(f"backbone: expected none, since {folder} holds its own, got {type(backbone).__name__}")
    else:
        known = named_class(folder / _SETTINGS, record["backbone"]["class"])
        found = known.from_pretrained(folder / _BACKBONE, local_files_only=True, use_safetensors=True)
    model = cls(found, processor, **record["settings"])
    weights = load_file(folder / _WEIGHTS)
    with torch.no_grad():
        model.table.meta_tokens.copy_(weights["meta_tokens"])
        if model.projection is not None:
            model.projection.weight.copy_(weights["projection"])
    return model.to(device=device, dtype=dtype).eval()


def _with_adapter(folder: Path, record: dict[str, str], backbone: Any) -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise MissingDependencyError("an adapter needs the package peft: pip install 'metaindex[encoders]'") from None
    if backbone is None or isinstance(backbone, (str, os.PathLike)):
        where = record["path"] if backbone is None else os.fspath(backbone)
        if not where:
            raise ValueError(
                f"backbone: {folder} holds an adapter and does not tell where its backbone was; give the model or its path"
            )
        backbone = named_class(folder / _SETTINGS, record["class"]).from_pretrained(where, use_safetensors=True)
    # As the whole of a backbone and the Meta Tokens do, it has gradients, so that training goes on with it.
    return peft.PeftModel.from_pretrained(backbone, str(folder / _ADAPTER), is_trainable=True)


def named_class(file: str | os.PathLike[str], name: str) -> Any:
    """The transformers model that ``file`` names; anything else of that name is an UnsupportedFormatError."""
    import transformers

    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise UnsupportedFormatError(
            f"{file}: this version of transformers has no model {name!r}; install the one that it was saved with"
        )
    return found


def _record(folder: Path) -> dict[str, Any]:
    name = folder / _SETTINGS
    try:
        record: dict[str, Any] = json.loads(name.read_text(encoding="utf-8"))
        format_ = record["format"]
    except FileNotFoundError:
        if folder.is_dir():
            raise UnsupportedFormatError(f"{folder}: no MetaEmbed model, it has no {_SETTINGS}") from None
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UnsupportedFormatError(f"{name}: not what MetaEmbed.save writes ({error})") from None
    if format_ != FORMAT:
        raise UnsupportedFormatError(f"{name}: format {format_}, this version reads {FORMAT}; install a newer metaindex")
    return record
