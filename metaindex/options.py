"""The arguments that make an index, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metaindex.checks import integer, usable_cores
from metaindex.coarse import kinds, library
from metaindex.coarse.spec import parsed
from metaindex.device.devices import resolved
from metaindex.device.residency import Residency, checked_placement
from metaindex.types import Levels


def threads(num_threads: int | None) -> int:
    if num_threads is not None:
        return integer("num_threads", num_threads, most=1024)
    return usable_cores()


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


def levels(edges: Sequence[int] | None, doc_tokens: int | None) -> Levels:
    found = Levels((1,)) if edges is None else Levels.of(edges)
    if edges is not None and doc_tokens is not None and found.tokens != doc_tokens:
        raise ValueError(f"levels: expected edges that end at doc_tokens = {doc_tokens}, got {found.tokens}")
    return found if doc_tokens is None else found.extended_to(doc_tokens)
