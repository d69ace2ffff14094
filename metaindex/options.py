"""The arguments that make an index, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metaindex.checks import integer, usable_cores
from metaindex.coarse import kinds, library
from metaindex.coarse.spec import parsed
from metaindex.codecs import CODECS, Bands, as_bands
from metaindex.device.devices import resolved
from metaindex.device.residency import Residency, checked_placement
from metaindex.types import Levels


def threads(num_threads: int | None) -> int:
    if num_threads is not None:
        return integer("num_threads", num_threads, most=1024)
    return usable_cores()


def codecs(codec: Any, doc_tokens: int | None) -> Bands:
    """Which codec keeps which tokens; what would keep none of ``doc_tokens`` is left out."""
    found = as_bands(codec)
    return found if doc_tokens is None else found.below(doc_tokens)


def early(codec: Any, bands: Bands) -> str | None:
    """The codec of the early copy."""
    if codec is None:
        return None
    if not isinstance(codec, str) or codec not in CODECS:
        raise ValueError(f"early: expected one of {', '.join(CODECS)} or None, got {codec!r}")
    if not all(CODECS[codec].dtype.itemsize < each.dtype.itemsize for each in bands.codecs):
        raise ValueError(
            f"early: expected a codec of fewer bytes a number than {bands}, which it is a copy of, got {codec!r}; such as "
            "early='int8' beside codec='float16'"
        )
    return codec


def fields(names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"fields: expected a list of names, got {type(names).__name__}")
    return tuple(names)


def coarse(text: Any, dim: int | None) -> str | None:
    """The coarse stage that ``text`` means, in the form that is stored. Where d is known already, FAISS is asked for it now."""
    if text is None:
        return None
    spec = parsed(text)
    library.load()
    if dim is not None:
        kinds.new(spec.factory, spec.size(dim))
    return str(spec)


def memory_limit(argument: str, limit: int | None) -> int | None:
    return None if limit is None else integer(argument, limit, most=2**63 - 1)


def residency(device: Any, limit: int | None, placement: Any) -> Residency:
    return Residency(resolved(device), memory_limit("device_memory_limit", limit), checked_placement(placement))


def levels(edges: Sequence[int] | None, doc_tokens: int | None, bands: Bands) -> Levels:
    """The levels of an index, among whose edges are those of its codecs."""
    found = Levels((1,)) if edges is None else Levels.of(edges)
    for edge in bands.edges:
        if edges is None:
            found = found.extended_to(edge)
        elif edge not in found.edges:
            listed = ", ".join(map(str, found.edges))
            raise ValueError(f"codec: expected token edges among the levels' {listed}, got {edge}; a level has one codec")
    if edges is not None and doc_tokens is not None and found.tokens != doc_tokens:
        raise ValueError(f"levels: expected edges that end at doc_tokens = {doc_tokens}, got {found.tokens}")
    return found if doc_tokens is None else found.extended_to(doc_tokens)
