"""Which codec keeps which tokens of a document: a **band** is a run of tokens that one codec keeps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from metaindex.checks import LARGEST, integer
from metaindex.codecs.base import Codec
from metaindex.codecs.names import codec


@dataclass(frozen=True)
class Bands:
    """``codecs`` in the order of tokens; ``edges``, rising, are where one ends and the next begins. The last keeps the rest.

    Printed as ``"8:int8,float16"``: tokens below 8 in int8, the rest in float16. One codec alone prints as its name.
    """

    edges: tuple[int, ...]
    codecs: tuple[Codec, ...]

    def __str__(self) -> str:
        climbing = (f"{edge}:{each.name}," for edge, each in zip(self.edges, self.codecs))
        return "".join(climbing) + self.codecs[-1].name

    @property
    def starts(self) -> tuple[int, ...]:
        """The first token of each band."""
        return (0, *self.edges)

    def at(self, token: int) -> Codec:
        """The codec that keeps a token."""
        return self.codecs[bisect_right(self.edges, token)]

    def below(self, r_c: int) -> Bands:
        """The bands that the first ``r_c`` tokens lie in."""
        count = sum(start < r_c for start in self.starts)
        return Bands(self.edges[: count - 1], self.codecs[:count])

    @property
    def strictest(self) -> Codec:
        """The codec with the smallest limit: what it takes, all take."""
        return min(self.codecs, key=lambda each: each.limit)


def as_bands(value: Any) -> Bands:
    """Bands from the ``codec`` argument of an index: a name, a dict of token edges such as ``{8: "int8", None: "float16"}``, or
    the text of bands. The last of a dict keeps the rest, whatever its edge.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(value, Mapping):
        return _of(value)
    return bands(value) if isinstance(value, str) else Bands((), (codec(value),))


@lru_cache(maxsize=64)
def bands(text: str) -> Bands:
    """The inverse of ``str(Bands)``. Raises ValueError."""
    if ":" not in text:
        return Bands((), (codec(text),))
    *climbing, last = text.split(",")
    pairs: dict[int | None, str] = {}
    for part in climbing:
        edge, _, name = part.partition(":")
        # Not all that int() takes: one text for one meaning.
        if not (edge.isascii() and edge.isdecimal() and len(edge) <= 10 and not edge.startswith("0")) or int(edge) in pairs:
            raise ValueError(f"codec: expected a name or edges such as '8:int8,float16', got {text!r}")
        pairs[int(edge)] = name
    found = _of({**pairs, None: last})
    if str(found) != text:
        raise ValueError(f"codec: expected rising edges and no codec twice in a row, as in '8:int8,float16', got {text!r}")
    return found


def _of(pairs: Mapping[Any, Any]) -> Bands:
    if not pairs:
        raise ValueError("codec: expected at least one codec, such as {8: 'int8', None: 'float16'}, got {}")
    *climbing, last = pairs
    edges = [integer("codec: a token edge", edge, most=LARGEST) for edge in climbing]
    if last is not None:
        integer("codec: a token edge", last, most=LARGEST)
    if any(after is not None and after <= before for before, after in pairwise([*edges, last])):
        raise ValueError(f"codec: expected rising token edges, got {list(pairs)}")
    first, *others = map(codec, pairs.values())
    stops: list[int] = []
    kept = [first]
    for edge, each in zip(edges, others):
        if each != kept[-1]:
            stops.append(edge)
            kept.append(each)
    return Bands(tuple(stops), tuple(kept))
