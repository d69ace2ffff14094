"""metaindex: search by many vectors per document, at the budget you choose.

A document is an ordered set of vectors, a query another, and a search compares as many of each as its budget ``(r_q, r_c)``
says. Importing this package needs numpy only.
"""

from metaindex.errors import MetaIndexError
from metaindex.execution.why_not import WhyNot
from metaindex.index import MetaIndex
from metaindex.nesting import nest
from metaindex.planning.plan import Coarse, Exact, Plan, Stage
from metaindex.result import Document, SearchResult
from metaindex.types import Budget, Levels

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
    "SearchResult",
    "Stage",
    "WhyNot",
    "nest",
]
