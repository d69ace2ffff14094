"""What an encoder is to the rest of metaindex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Encoder(Protocol):
    """Makes vectors of texts, images or both; see ``metaindex.encoders.inputs`` for what an input may be.

    ``fingerprint`` tells encoders apart whose vectors can't be compared; an index keeps it. ``nested``: whether every prefix of
    a document's vectors is an embedding of its own; ``None`` where nobody said.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def nested(self) -> bool | None: ...

    def encode_query(self, inputs: Sequence[Any]) -> Any:
        """Vectors of N queries: [N, R, d], or a list of [r_i, d]."""

    def encode_document(self, inputs: Sequence[Any]) -> Any:
        """Vectors of N documents: [N, T, d], or a list of [t_i, d]."""
