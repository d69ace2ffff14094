"""Encoders: from texts and images to vectors. Each gives ``encode_query(inputs)`` and ``encode_document(inputs)``.

``MetaEmbed`` puts Meta Tokens on a transformer, ``docstring_encoder`` is a small one that was trained, ``as_encoder`` plugs in
what other libraries made, and ``minilm.MiniLM`` gives the token vectors of a model that was not trained for budgets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metaindex.encoders.adapters import as_encoder
from metaindex.encoders.encoder import Encoder
from metaindex.encoders.shipped import docstring_encoder
from metaindex.errors import MissingDependencyError

if TYPE_CHECKING:
    from metaindex.encoders.metaembed import MetaEmbed

__all__ = ["Encoder", "MetaEmbed", "as_encoder", "docstring_encoder"]


def __getattr__(name: str) -> Any:
    """``MetaEmbed`` is a torch module, so torch is imported when it is asked for."""
    if name != "MetaEmbed":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from metaindex.encoders.metaembed import MetaEmbed
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"MetaEmbed needs the package {error.name}, which is not installed: pip install 'metaindex[encoders]'"
        ) from None
    return MetaEmbed
