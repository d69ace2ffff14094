"""metaindex: search by many vectors per document, at the budget you choose.

A document is an ordered set of vectors, a query another, and a search compares as many of each as its budget ``(r_q, r_c)``
says. Importing this package needs numpy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metaindex.errors import MetaIndexError
from metaindex.execution.why_not import WhyNot
from metaindex.index import MetaIndex
from metaindex.nesting import nest
from metaindex.planning.plan import Coarse, Exact, Plan, Stage
from metaindex.result import Document, SearchResult
from metaindex.types import Budget, Levels

if TYPE_CHECKING:
    from metaindex.encoders.adapters import as_encoder
    from metaindex.retriever import Retriever

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Coarse",
    "Document",
    "Exact",
    "Levels",
    "MetaIndex",
    "MetaIndexError",
    "Plan",
    "Retriever",
    "SearchResult",
    "Stage",
    "WhyNot",
    "as_encoder",
    "nest",
]

_LATER = {"as_encoder": "metaindex.encoders.adapters", "Retriever": "metaindex.retriever"}


def __getattr__(name: str) -> Any:
    """What an index does not need is imported when it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
