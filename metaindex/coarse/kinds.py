"""What the FAISS index of a factory string is and can do: made, trained on how much, searched with which parameters.

FAISS nests indexes: a transform before one, a refinement behind one, a quantizer inside one. Everything here walks such a nest.
An index that ``downcast_index`` returns belongs to the one it was taken from, which therefore has to be held on to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from metaindex.coarse.library import load

POINTS_PER_CENTROID = 39  # FAISS warns of fewer
_CODEBOOK = 256
_MOST_SIZE = 1 << 20
_LINKS = (2, 1024)  # of a document in a graph: with fewer FAISS ends the process, with more they outweigh any vector
_AT_LEAST_1 = ("nprobe", "efSearch", "k_factor")  # what FAISS fails on otherwise
_TRIAL = 64
_PARAMETERS = (
    ("IndexPreTransform", "SearchParametersPreTransform"),
    ("IndexRefine", "IndexRefineSearchParameters"),
    ("IndexIVFPQ", "IVFPQSearchParameters"),
    ("IndexIVF", "SearchParametersIVF"),
    ("IndexHNSW", "SearchParametersHNSW"),
    ("IndexPQ", "SearchParametersPQ"),
)
# Indexes within an index: the attribute, what goes before the names of its parameters, and the parameter that carries them.
_INNER = (
    ("index", "", "index_params"),
    ("base_index", "", "base_index_params"),
    ("quantizer", "quantizer_", "quantizer_params"),
)


def new(factory: str, size: int) -> Any:
    """An empty index for vectors of ``size`` numbers, by inner product.

    Raises:
        ValueError: FAISS can't make it, or it can't do what a coarse stage needs; the message says which.
    """
    faiss = load()
    if size > _MOST_SIZE:
        raise ValueError(f"coarse: expected vectors of at most {_MOST_SIZE:,} numbers, got {size:,}; give fde a dim")
    try:
        if "IDMap" in factory:
            raise ValueError(f"coarse: {factory!r} keeps ids of its own, which the coarse stage does already; leave IDMap out")
        index = faiss.index_factory(size, factory, faiss.METRIC_INNER_PRODUCT)
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"coarse: {factory!r} compares by distance; an index by inner product is needed")
        _check_links(index, factory)
        if index.is_trained:
            _try(faiss.index_factory(size, factory, faiss.METRIC_INNER_PRODUCT), size)
    except RuntimeError as error:
        raise ValueError(f"coarse: FAISS can't make {factory!r} of vectors with {size:,} numbers: {reason(error)}") from None
    for each in _nest(index):
        for trained in (each, getattr(each, "pq", None)):
            if (clustering := getattr(trained, "cp", None)) is not None:
                clustering.min_points_per_centroid = 1  # how few are enough is decided here, see ``training_points``
    return index


def reason(error: RuntimeError) -> str:
    """What FAISS says, without where in its sources it says so."""
    return str(error).rpartition("Error: ")[2].rpartition("failed: ")[2]


def _check_links(index: Any, factory: str) -> None:
    least, most = _LINKS
    for hnsw in (each.hnsw for each in _nest(index) if hasattr(each, "hnsw")):
        # The lowest layer has twice as many links as are asked for; for a single one FAISS makes no layer at all.
        links = hnsw.nb_neighbors(0) // 2 if hnsw.cum_nneighbor_per_level.size() > 1 else 0
        if not least <= links <= most:
            raise ValueError(f"coarse: expected HNSW{least} to HNSW{most}, got {factory!r}; HNSW32 is usual")


def _try(index: Any, size: int) -> None:
    """Add twice and search: some kinds take vectors only once."""
    vectors = np.eye(_TRIAL, size, dtype=np.float32)
    for _ in range(2):
        index.add(vectors)
    index.search(vectors[:1], 1)


def training_points(index: Any) -> int:
    """How many documents an empty index needs before it can be trained well; 0 where it needs no training."""
    if index.is_trained:
        return 0
    centroids = 1
    for each in _nest(index):
        centroids = max(centroids, getattr(each, "nlist", 0), 1 << getattr(getattr(each, "pq", None), "nbits", 0))
        if hasattr(each, "chain") or _is_additive(each):
            centroids = max(centroids, _CODEBOOK)
    return POINTS_PER_CENTROID * centroids


def parameters(index: Any) -> dict[str, int]:
    """The names of what a search can set, such as ``nprobe``, and FAISS's own defaults."""
    return dict(_parameters(index, ""))


def _parameters(index: Any, prefix: str) -> Iterator[tuple[str, int]]:
    kind = _parameters_of(index)
    yield from ((prefix + name, int(value)) for name, value in _numbers(kind()).items())
    for inner, more, _ in _inner(index, kind):
        yield from _parameters(inner, prefix + more)


def wrong_parameter(index: Any, name: str, value: int) -> str | None:
    """Why a search of this index can't set ``name`` to ``value``; ``None`` where it can."""
    if name not in (known := parameters(index)):
        return f"there is no parameter {name!r}; there are {', '.join(['r_q', *known])}"
    if value < 1 and name.endswith(_AT_LEAST_1):
        return f"{name}: expected at least 1, got {value}"
    return None


def search_parameters(index: Any, values: Mapping[str, int], selector: Any = None, prefix: str = "") -> Any:
    """FAISS's object for a search with the parameters ``values`` by name, and a selector of documents."""
    kind = _parameters_of(index)
    numbers = _numbers(kind())
    arguments = {name: type(default)(values.get(prefix + name, default)) for name, default in numbers.items()}
    for inner, more, carrier in _inner(index, kind):
        if not more:  # the inner one finds the documents, so it selects them
            arguments[carrier], selector = search_parameters(inner, values, selector, prefix), None
        elif any(name.startswith(prefix + more) for name in values):
            arguments[carrier] = search_parameters(inner, values, None, prefix + more)
    return kind(**arguments) if selector is None else kind(**arguments, sel=selector)


def lists(index: Any) -> int:
    """Into how many lists the index sorts its documents; 0 where it has none."""
    return max(int(getattr(each, "nlist", 0)) for each in _nest(index))


def is_graph(index: Any) -> bool:
    return not lists(index) and any(hasattr(each, "hnsw") for each in _nest(index))


def ends_on_selectors(index: Any) -> bool:
    """Whether a selector may end the process: FAISS up to 1.13 refuses one in threads that catch nothing."""
    return any(map(_is_additive, _nest(index)))


def nbytes(index: Any) -> int:
    """What the index takes in memory, a little more or less."""
    found = 0
    for each in _nest(index):
        per_document = getattr(each, "code_size", 0) + 8 * hasattr(each, "invlists")
        found += each.ntotal * per_document
        if hasattr(each, "hnsw"):
            found += 4 * each.hnsw.neighbors.size() + 8 * each.hnsw.offsets.size() + 4 * each.hnsw.levels.size()
    return int(found)


def _nest(index: Any) -> Iterator[Any]:
    """The index and those within it, the outer ones first."""
    yield index
    for attribute in ("index", "base_index", "refine_index", "quantizer", "storage"):
        if (inner := getattr(index, attribute, None)) is not None:
            yield from _nest(load().downcast_index(inner))


def _is_additive(index: Any) -> bool:
    return any("AdditiveQuantizer" in base.__name__ for base in type(index).__mro__)


def _inner(index: Any, kind: Any) -> Iterator[tuple[Any, str, str]]:
    for attribute, prefix, carrier in _INNER:
        if hasattr(kind, carrier) and (inner := getattr(index, attribute, None)) is not None:
            yield load().downcast_index(inner), prefix, carrier


def _parameters_of(index: Any) -> Any:
    """FAISS's class of parameters for an index of this class."""
    faiss = load()
    for name, parameters in _PARAMETERS:
        if isinstance(index, getattr(faiss, name)):
            return getattr(faiss, parameters)
    return faiss.SearchParameters


def _numbers(owner: Any) -> dict[str, int | float | bool]:
    names = (name for name in dir(owner) if not name.startswith("_") and name != "thisown")
    return {name: value for name in names if isinstance(value := getattr(owner, name), (bool, int, float))}
