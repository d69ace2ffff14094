"""What an index is: the choices that hold for all of its documents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from metaindex.codecs import CODECS
from metaindex.errors import CorruptIndexError
from metaindex.types import Levels

FORMAT_VERSION = 1
IdKind = Literal["int", "text"]


@dataclass(frozen=True)
class Schema:
    """The choices that hold for all documents of an index.

    ``dim`` is d, ``None`` until known. ``doc_tokens`` is T where it is fixed; ``None`` lets longer documents add levels.
    ``query_tokens`` is R, or ``None`` until known. ``nested`` says whether prefixes of a document's tokens stand for the whole,
    ``None`` when nobody said. ``id_kind`` is ``None`` until the first document.
    """

    dim: int | None
    levels: Levels
    codec: str = "float16"
    doc_tokens: int | None = None
    query_tokens: int | None = None
    nested: bool | None = None
    normalize: bool = False
    id_kind: IdKind | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({**fields, "levels": list(self.levels.edges)})

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The inverse of ``to_json``.

        Raises:
            CorruptIndexError: the text is not what ``to_json`` writes.
        """
        try:
            fields = json.loads(text)
            fields["levels"] = Levels.of(fields["levels"])
            schema = cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptIndexError(f"catalog.sqlite: the schema is damaged ({error}); restore the index from a copy") from None
        for name, good in _checks(schema).items():
            if not good:
                value = repr(getattr(schema, name))
                raise CorruptIndexError(f"catalog.sqlite: the schema has {name}={value}; restore the index from a copy")
        return schema


def _checks(schema: Schema) -> dict[str, bool]:
    return {
        "dim": schema.dim is None or (_is_count(schema.dim) and schema.dim <= 1 << 20),
        "levels": len(schema.levels) < 100 and schema.levels.tokens <= 1 << 31,
        "codec": isinstance(schema.codec, str) and schema.codec in CODECS,
        "doc_tokens": schema.doc_tokens is None or (_is_count(schema.doc_tokens) and schema.doc_tokens <= schema.levels.tokens),
        "query_tokens": schema.query_tokens is None or _is_count(schema.query_tokens),
        "nested": schema.nested is None or isinstance(schema.nested, bool),
        "normalize": isinstance(schema.normalize, bool),
        "id_kind": schema.id_kind in (None, "int", "text"),
        "format_version": schema.format_version == FORMAT_VERSION,
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
