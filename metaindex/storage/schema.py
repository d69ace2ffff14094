"""What an index is: the choices that hold for all of its documents."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass, replace
from typing import Any, Literal

from metaindex.cached import cached_property
from metaindex.checks import LARGEST
from metaindex.codecs import CODECS, Bands, Codec, bands
from metaindex.errors import CorruptIndexError
from metaindex.types import Levels

FORMAT_VERSION = 1
MOST_LEVELS = 99
MOST_FIELDS = 32
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")  # what may stand in the text of the catalog's SQL
_PLAN = re.compile(r"[A-Za-z0-9_(),*=>: ]{1,1000}")  # what plans are written with; planning reads them
_ENCODER = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_COARSE = re.compile(r"[A-Za-z0-9_.+,=()\[\]-]{1,256}")
MOST_DIMENSIONS = 1 << 17  # sums of int8 products stay within 32 bits
_OPTIONAL = ("coarse", "default_plan", "early", "encoder")  # written where there is one
IdKind = Literal["int", "text"]


@dataclass(frozen=True)
class Schema:
    """The choices that hold for all documents of an index.

    ``codec`` is the name of one codec or the text of ``Bands``, whose edges are edges of levels. ``early`` is the codec of a
    copy of all levels, for the early stages of plans, or ``None``: one of fewer bytes than any that it is a copy of.
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
    early: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        for name, (good, expected) in _checks(self).items():
            if not good:
                raise ValueError(f"{name}: expected {expected}, got {reprlib.repr(getattr(self, name))}")

    @property
    def bands(self) -> Bands:
        """Which codec keeps which tokens."""
        return bands(self.codec)

    @property
    def copy_codec(self) -> Codec | None:
        """The codec of the early copy, where there is one."""
        return None if self.early is None else CODECS[self.early]

    def kept_in(self, level: int) -> tuple[Codec, ...]:
        """The codecs that a level is kept in: its own, then that of the early copy."""
        return self._kept_in[level]

    @cached_property
    def _kept_in(self) -> tuple[tuple[Codec, ...], ...]:
        copy = () if self.copy_codec is None else (self.copy_codec,)
        return tuple((self.bands.at(self.levels.start(level)), *copy) for level in range(len(self.levels)))

    def token_bytes(self, level: int) -> int:
        """The bytes of a token of ``level``, in all codecs that keep it."""
        assert self.dim is not None
        return sum(each.bytes_per_token(self.dim) for each in self.kept_in(level))

    @cached_property
    def early_view(self) -> Schema:
        """What the early copy is: an index of that codec."""
        assert self.early is not None
        return replace(self, codec=self.early, early=None)

    @property
    def strictest(self) -> Codec:
        """The codec whose limit all vectors of the index must keep."""
        own, copy = self.bands.strictest, self.copy_codec
        return own if copy is None else min(own, copy, key=lambda each: each.limit)

    def to_json(self) -> str:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields = {name: value for name, value in fields.items() if value is not None or name not in _OPTIONAL}
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
        "codec": (
            _is_codec(schema),
            f"one of {', '.join(CODECS)}, or several with the edges of levels, as in '8:int8,float16'",
        ),
        "early": (_is_early(schema), "a codec of fewer bytes a number than those of the levels, such as int8 beside float16"),
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


def _is_codec(schema: Schema) -> bool:
    try:
        return isinstance(schema.codec, str) and set(schema.bands.edges) <= set(schema.levels.edges)
    except ValueError:
        return False


def _is_early(schema: Schema) -> bool:
    if schema.early is None or not _is_codec(schema):
        return True
    copy = CODECS.get(schema.early) if isinstance(schema.early, str) else None
    return copy is not None and all(copy.dtype.itemsize < each.dtype.itemsize for each in schema.bands.codecs)


def _is_encoder(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _ENCODER.fullmatch(value) is not None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _is_plan(text: Any) -> bool:
    return text is None or (isinstance(text, str) and _PLAN.fullmatch(text) is not None)


def _are_fields(names: Any) -> bool:
    named = isinstance(names, tuple) and all(isinstance(name, str) and _FIELD.fullmatch(name) for name in names)
    return named and len(names) == len(set(names)) <= MOST_FIELDS
