"""``Retriever``: an encoder and an index, so that texts and images go in and hits come out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from numpy.typing import NDArray

from metaindex.checks import integer
from metaindex.encoders.adapters import as_encoder
from metaindex.encoders.encoder import Encoder
from metaindex.encoders.inputs import Content, content, is_image
from metaindex.errors import ShapeError
from metaindex.index import MetaIndex
from metaindex.planning.plan import Plan
from metaindex.planning.preview import PlannedSearch
from metaindex.result import SearchResult

_END = object()
_WIDTH = 100


@dataclass(frozen=True)
class Hit:
    """A document that was found: its ``text`` and the path of its ``image`` where they are stored, and what other metadata it
    has."""

    id: Any
    score: float
    text: str | None
    image: str | None
    metadata: dict[str, Any]

    def __str__(self) -> str:
        shown = [f"{self.score:10.4f}", str(self.id)]
        shown += [each for each in (self.image, None if self.text is None else " ".join(self.text.split())) if each]
        return _cut("  ".join(shown))


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The hits of one query, the best first; print them. ``result``: what the index answered to the whole call."""

    query: str
    hits: tuple[Hit, ...]
    result: SearchResult

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, place: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[place]

    def __len__(self) -> int:
        return len(self.hits)

    def __repr__(self) -> str:
        kind = "exact" if self.result.exact else "approximate"
        lines = [f"{rank:>3} {hit}" for rank, hit in enumerate(self.hits, 1)] or ["    nothing found"]
        return "\n".join([_cut(f"? {self.query}"), *lines, f"    {self.result.plan}, {kind}"])


class Retriever:
    """Searches an index with texts and images, by an encoder.

    What was encoded is stored with each document as metadata: its text under "text", the path of its image under "image" (of an
    image that only was in memory, nothing). Filters can use both. An input is a ``str``, a text; a ``pathlib.Path`` or a PIL
    image; or a dict with "text", "image" or both.

    Args:
        encoder: an encoder, or anything ``as_encoder`` takes without more arguments.
        index: where the vectors are; a new one in memory by default. The first ``add`` stores the encoder's fingerprint in it.

    Raises:
        EncoderMismatchError: the index holds vectors of another encoder. TypeError: no encoder.
    """

    def __init__(self, encoder: Any, index: MetaIndex | None = None) -> None:
        self.encoder: Encoder = as_encoder(encoder)
        self.index = MetaIndex() if index is None else index
        self.index.check_encoder(self.encoder)

    @classmethod
    def open(cls, path: str | os.PathLike[str], encoder: Any, mode: str = "r", **options: Any) -> Retriever:
        """The index at ``path``, which ``save`` or a durable index wrote, with its encoder. ``options``: as ``MetaIndex.open``.

        Raises:
            EncoderMismatchError: another encoder made its vectors. Else as ``MetaIndex.open``.
        """
        index = MetaIndex.open(path, mode, **options)
        try:
            return cls(encoder, index)
        except BaseException:
            index.close()
            raise

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index, with texts and paths, to a folder. The encoder is not in it, only its fingerprint."""
        self.index.save(path, overwrite=overwrite)

    def add(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 256,
    ) -> NDArray:
        """Encode documents and add them: all of them or, when anything is wrong, none.

        Args:
            inputs: texts, images or dicts of both; an iterator is read, and its vectors are held, ``batch_size`` at a time.
            ids, metadata: as in ``MetaIndex.add``.

        Returns:
            The ids.

        Raises:
            EncoderMismatchError, ReadOnlyError: the index takes nothing of this encoder, or nothing at all.
            TypeError, ValueError, ShapeError: an input, an id or metadata does not fit, or metadata has another value under
            "text" or "image".
        """
        return self._write(inputs, ids, metadata, batch_size)

    def upsert(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any],
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int = 256,
    ) -> NDArray:
        """``add``, in place of the documents whose ids are taken."""
        return self._write(inputs, ids, metadata, batch_size, replacing=True)

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        budget: int | tuple[int, int] | None = None,
        candidates: int | None = None,
        filter: Any = None,
        plan: Plan | PlannedSearch | str | None = None,
        scorer: str = "auto",
    ) -> Any:
        """The ``k`` best documents for a text or an image: ``Hits``; for a list of them, a list of ``Hits``.

        The other arguments are those of ``MetaIndex.search``. Raises as it does, and TypeError for what is no text or image.
        """
        single = not isinstance(query, (list, tuple))
        queries = [query] if single else list(query)
        asked = [content(each, "query" if single else f"query[{place}]") for place, each in enumerate(queries)]
        vectors = self.encoder.encode_query(queries)
        result = self.index.search(vectors, k, budget=budget, candidates=candidates, filter=filter, plan=plan, scorer=scorer)
        found = self._hits(asked, result)
        return found[0] if single else found

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Retriever({self.encoder.fingerprint}, {self.index!r})"

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None,
        metadata: Iterable[Mapping[str, Any] | None] | None,
        batch_size: int,
        *,
        replacing: bool = False,
    ) -> NDArray:
        if isinstance(inputs, (str, Path, Mapping)) or is_image(inputs):
            raise TypeError(f"inputs: expected a list, got one {type(inputs).__name__}; wrap it in a list")
        size, kept = integer("batch_size", batch_size), deque[dict[str, Any]]()
        self.index.check_encoder(self.encoder)  # before anything is encoded
        encoded = self._encoded(inputs, metadata, size, kept)
        return self.index._write(encoded, ids, _drained(kept), replacing=replacing, encoder=self.encoder)

    def _encoded(
        self,
        inputs: Iterable[Any],
        metadata: Iterable[Mapping[str, Any] | None] | None,
        size: int,
        kept: deque[dict[str, Any]],
    ) -> Iterator[Any]:
        """Vectors batch by batch; what is to be stored of each batch is in ``kept`` when its vectors come out."""
        items, described = iter(inputs), None if metadata is None else iter(metadata)
        count = 0
        while batch := list(islice(items, size)):
            for item in batch:
                given = None if described is None else next(described, _END)
                if given is _END:
                    raise ShapeError(f"metadata: expected one for each document, got {count} for {count + 1} or more")
                kept.append(_stored(content(item, f"inputs[{count}]"), given, count))
                count += 1
            yield self.encoder.encode_document(batch)
        if described is not None and next(described, _END) is not _END:
            raise ShapeError(f"metadata: expected {count}, one for each document, got more")

    def _hits(self, asked: list[Content], result: SearchResult) -> list[Hits]:
        rows = result.to_list()
        wanted = list({hit["id"]: None for row in rows for hit in row})
        # A document that was removed since the search has no metadata any more.
        metadata = {found.id: found.metadata or {} for found in self.index.get(wanted, missing="ignore")} if wanted else {}
        return [
            Hits(_asked(query), tuple(_hit(hit, metadata.get(hit["id"], {})) for hit in row), result)
            for query, row in zip(asked, rows)
        ]


def _drained(kept: deque[dict[str, Any]]) -> Iterator[dict[str, Any] | None]:
    while kept:
        yield kept.popleft() or None


def _stored(item: Content, given: Any, place: int) -> dict[str, Any]:
    """The metadata of a document: what the caller gives, and the text and the path that were encoded."""
    if given is None:
        return dict(item.described())
    if not isinstance(given, Mapping):
        raise TypeError(f"metadata[{place}]: expected a dict, got {type(given).__name__}")
    stored = dict(given)
    for name, value in item.described().items():
        if stored.setdefault(name, value) != value:
            raise ValueError(f"metadata[{place}]: {name!r} holds the {name} of the input; use another key")
    return stored


def _hit(hit: Mapping[str, Any], metadata: Mapping[str, Any]) -> Hit:
    # Of an index that was made elsewhere they may be anything.
    own = {name: metadata[name] for name in ("text", "image") if isinstance(metadata.get(name), str)}
    rest = {name: value for name, value in metadata.items() if name not in own}
    return Hit(hit["id"], hit["score"], own.get("text"), own.get("image"), rest)


def _asked(query: Content) -> str:
    stored = query.described()
    if query.image is not None:
        stored.setdefault("image", "an image")
    return " ".join(" ".join(stored[name].split()) for name in ("image", "text") if name in stored)


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3].rstrip() + "..."
