"""The codecs there are, by name."""

from __future__ import annotations

from metaindex.codecs.base import Codec
from metaindex.codecs.floating import BFloat16, Float16, Float32
from metaindex.codecs.int8 import Int8

CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), Float16(), BFloat16(), Int8())}


def codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        ValueError: no such codec; the message lists them.
    """
    try:
        return CODECS[name]
    except (KeyError, TypeError):
        raise ValueError(f"codec: expected one of {', '.join(CODECS)}, got {name!r}") from None
