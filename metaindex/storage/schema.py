"""What an index is: the choices that hold for all of its documents."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from metaindex.checks import LARGEST
from metaindex.codecs import CODECS
from metaindex.errors import CorruptIndexError
from metaindex.types import Levels

FORMAT_VERSION = 1
MOST_LEVELS = 99
MOST_FIELDS = 32
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")  # what may stand in the text of the catalog's SQL
_PLAN = re.compile(r"[A-Za-z0-9_(),*=> ]{1,1000}")  # what plans are written with; planning reads them
_ENCODER = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_COARSE = re.compile(r"[A-Za-z0-9_.+,=()\[\]-]{1,256}")
MOST_DIMENSIONS = 1 << 17  # sums of int8 products stay within 32 bits
IdKind = Literal["int", "text"]


@dataclass(frozen=True)
class Schema:
    """The choices that hold for all documents of an index.

    ``dim`` is d, ``None`` until known. ``doc_tokens`` is T where it is fixed; ``None`` lets longer documents add levels.
    ``query_tokens`` is R, or ``None`` until known. ``nested`` says whether prefixes of a document's tokens stand for the whole,
    ``None`` when nobody said. ``id_kind`` is ``None`` until the first document. ``fields`` are the metadata fields
    that have an index. ``coarse`` is the coarse stage, as text that ``metaindex.coarse.spec`` reads, or ``None``.
    ``default_plan`` is the text of the plan of searches that name none; ``None`` compares everything. ``encoder`` is the
    fingerprint of what made the vectors, ``None`` when nobody said.
    """

    dim: int | None
    levels: Levels
    codec: str = "float16"
    doc_tokens: int | None = None
    query_tokens: int | None = None
    nested: bool | None = None
    normalize: bool = False
    id_kind: IdKind | None = None
    fields: tuple[str, ...] = ()
    coarse: str | None = None
    format_version: int = FORMAT_VERSION
    default_plan: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        for name, (good, expected) in _checks(self).items():
            if not good:
                raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(getattr(self, name))}")

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.default_plan is None:
            del fields["default_plan"]  # readers from before there were default plans read an index without one
        if self.coarse is None:  # an index without one is written as before there were any
            del fields["coarse"]
        if self.encoder is None:
            del fields["encoder"]
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
            if not isinstance(fields["fields"], list):
                raise TypeError("fields: expected a list")
            fields["fields"] = tuple(fields["fields"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptIndexError(f"catalog.sqlite: the schema is damaged ({error}); restore the index from a copy") from None


def _checks(schema: Schema) -> dict[str, tuple[bool, str]]:
    """For each field whether it is good, and what it should be."""
    doc_tokens, query_tokens, dim = schema.doc_tokens, schema.query_tokens, schema.dim
    count = f"an integer from 1 to {LARGEST}"
    return {
        "dim": (dim is None or (_is_count(dim) and dim <= MOST_DIMENSIONS), f"an integer from 1 to {MOST_DIMENSIONS}"),
        "levels": (len(schema.levels) <= MOST_LEVELS and _is_count(schema.levels.tokens), f"at most {MOST_LEVELS} edges"),
        "codec": (isinstance(schema.codec, str) and schema.codec in CODECS, f"one of {', '.join(CODECS)}"),
        "doc_tokens": (doc_tokens is None or (_is_count(doc_tokens) and doc_tokens <= schema.levels.tokens), count),
        "query_tokens": (query_tokens is None or _is_count(query_tokens), count),
        "nested": (schema.nested is None or isinstance(schema.nested, bool), "True, False or None"),
        "normalize": (isinstance(schema.normalize, bool), "True or False"),
        "id_kind": (schema.id_kind in (None, "int", "text"), "int or text"),
        "fields": (_are_fields(schema.fields), f"at most {MOST_FIELDS} different names of letters, digits and underscores"),
        "default_plan": (_is_plan(schema.default_plan), "the text of a plan, at most 1,000 characters"),
        "coarse": (_is_coarse(schema.coarse), "text of at most 256 letters, digits and signs, or None"),
        "encoder": (_is_encoder(schema.encoder), "1 to 256 letters, digits and _ . : -, or None"),
        "format_version": (schema.format_version == FORMAT_VERSION, str(FORMAT_VERSION)),
    }


def _is_coarse(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _COARSE.fullmatch(value) is not None)


def _is_encoder(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _ENCODER.fullmatch(value) is not None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _is_plan(text: Any) -> bool:
    return text is None or (isinstance(text, str) and _PLAN.fullmatch(text) is not None)


def _are_fields(names: Any) -> bool:
    named = isinstance(names, tuple) and all(isinstance(name, str) and _FIELD.fullmatch(name) for name in names)
    return named and len(names) == len(set(names)) <= MOST_FIELDS
