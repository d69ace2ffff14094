"""How the numbers of a token are kept: float32, float16, bfloat16 or int8."""

from __future__ import annotations

from metaindex.codecs.bands import Bands, as_bands, bands
from metaindex.codecs.base import Codec, Parts
from metaindex.codecs.names import CODECS, codec

__all__ = ["CODECS", "Bands", "Codec", "Parts", "as_bands", "bands", "codec"]
