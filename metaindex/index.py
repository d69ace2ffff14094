"""``MetaIndex``: the facade. It checks what comes in, asks the store and the executor, and hands results out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import door
from metaindex.checks import integer, usable_cores
from metaindex.codecs import codec as find_codec
from metaindex.codecs import compiled
from metaindex.errors import ShapeError, UnknownIdError
from metaindex.execution import executor
from metaindex.execution.explain import Explanation, explain
from metaindex.execution.sample import compared
from metaindex.execution.windows import tokens_at
from metaindex.ingest import ingest
from metaindex.planning.choose import as_plan, chosen_plan
from metaindex.planning.plan import Plan, Step
from metaindex.planning.preview import PlannedSearch
from metaindex.planning.size import SizeEstimate, estimate, human
from metaindex.result import SearchResult
from metaindex.scoring.cpu import CpuScorer
from metaindex.scoring.reference import ReferenceScorer
from metaindex.scoring.registry import Registry
from metaindex.scoring.request import Queries
from metaindex.storage.repair import Repair, repair
from metaindex.storage.schema import Schema
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.store import Store
from metaindex.storage.verify import Verification
from metaindex.storage.where import parsed
from metaindex.types import Budget, Levels


@dataclass(frozen=True, eq=False)
class Document:
    """A stored document: its ``tokens`` float32 [t, d] as the codec kept them, and its metadata."""

    id: Any
    tokens: NDArray[np.float32]
    metadata: dict[str, Any] | None


def built_in_scorers() -> Registry:
    """The scorers that come with metaindex, the preferred one first."""
    scorers = Registry()
    scorers.register(CpuScorer())
    scorers.register(ReferenceScorer())
    return scorers


class MetaIndex:
    """An index of documents that are many vectors each, searched at a budget.

    Similarity is the inner product, and a document's score is ``sum_{i < r_q} max_{j < r_c} <q_i, d_j>`` (MetaEmbed,
    arXiv 2509.18095). Higher is better; of equal scores the document added first comes first.

    Args:
        dim: d, the numbers in a vector. What is not given here is taken from the first ``add``.
        doc_tokens: T, the most tokens a document may have. When not given, longer documents add levels.
        query_tokens: R, the most tokens a query may have. When not given, queries may have any number.
        levels: level edges, such as ``(1, 4, 16, 64)``; doubling by default. A search reads the levels below its budget only.
        codec: "float32", "float16", "bfloat16" or "int8" (one scale per token): how documents and queries are kept.
        path: a folder to create; every write is durable there when it returns. Without it the index lives in memory.
        nested: whether every prefix of a document's tokens is an embedding of its own, as MetaEmbed trains them and ``nest``
            orders them. Stored; where it is False, a budget that truncates documents warns once.
        normalize: divide every document and query vector by its L2 norm. Stored.
        fields: names of metadata fields that get an index, so that filters by them are fast among many documents: letters,
            digits and underscores, at most 32. Any field can be filtered by.
        memory_limit: the bytes of vectors that may be in memory. An index with a ``path`` maps its files by default; under a
            limit it reads them, keeps what fits and streams the rest, with the same results. In memory, an ``add`` that would
            exceed it raises CapacityError. What an ``add`` encodes, one batch at a time, is not counted.
        num_threads: threads of one search or one batch of an add; as many as this process may use by default.

    Any number of threads may search beside one that writes; a search sees one commit from start to end.
    """

    def __init__(
        self,
        dim: int | None = None,
        doc_tokens: int | None = None,
        query_tokens: int | None = None,
        *,
        levels: Sequence[int] | None = None,
        codec: str = "float16",
        path: str | os.PathLike[str] | None = None,
        nested: bool | None = None,
        normalize: bool = False,
        fields: Sequence[str] | None = None,
        num_threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        doc_tokens = None if doc_tokens is None else integer("doc_tokens", doc_tokens)
        schema = Schema(
            dim=None if dim is None else integer("dim", dim),
            doc_tokens=doc_tokens,
            query_tokens=None if query_tokens is None else integer("query_tokens", query_tokens),
            levels=_levels(levels, doc_tokens),
            codec=find_codec(codec).name,
            nested=None if nested is None else bool(nested),
            normalize=bool(normalize),
            fields=_fields(fields),
        )
        threads, limit = _threads(num_threads), _limit(memory_limit)
        encode = partial(compiled.encode, num_threads=threads)
        self._serve(Store.create(schema, path, encode=encode, memory_limit=limit), threads)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        verify: bool = False,
        num_threads: int | None = None,
        memory_limit: int | None = None,
    ) -> MetaIndex:
        """Open the index at ``path`` to read ("r"), or to write as well ("r+"). No vector is read until a search needs it.

        ``verify`` first compares every file with its checksum, which reads them all. Files are memory-mapped; with
        ``memory_limit`` they are read, and at most so many bytes of vectors are in memory, over all searches that run: what
        fits is kept, level 0 first. A file that is cut short by others is CorruptIndexError then, where a map ends the process.

        Raises:
            FileNotFoundError, NotADirectoryError, NotAnIndexError, UnsupportedFormatError: there is nothing to open.
            CorruptIndexError: a file is missing, truncated or changed.
        """
        index = cls.__new__(cls)
        threads, limit = _threads(num_threads), _limit(memory_limit)
        encode = partial(compiled.encode, num_threads=threads)
        index._serve(Store.open(path, mode, verify=verify, encode=encode, memory_limit=limit), threads)
        return index

    def _serve(self, store: Store, threads: int) -> None:
        self._store = store
        self._scorers = built_in_scorers()
        self._threads = threads
        self._warned = False

    # writes

    def add(
        self, doc_vectors: Any, ids: Iterable[Any] | None = None, metadata: Iterable[dict[str, Any] | None] | None = None
    ) -> NDArray:
        """Add documents: all of them or, when anything is wrong, none.

        Args:
            doc_vectors: an array [N, T, d], a list of [t_i, d], or an iterator whose items are batches of either kind, held one
                at a time. float16, float32, float64 or torch bfloat16, of any byte order and strides.
            ids: N integers of at least 0, or N texts of at most 1,024 bytes; by default integers from 0 on. One kind per index.
            metadata: N dicts of JSON values, or ``None``.

        Returns:
            The ids: int64 [N], or an object array of text.

        Raises:
            ShapeError: wrong rank, d or number of tokens, or not one id or dict for each document.
            TypeError: not floats; ids neither integers nor text, or not of the index's kind.
            NonFiniteError: NaN, infinity, or a number that overflows the codec.
            DuplicateIdError: an id is given twice or taken.
        """
        with self._store.transaction() as transaction:
            return ingest(transaction, doc_vectors, ids, metadata)

    def upsert(self, doc_vectors: Any, ids: Iterable[Any], metadata: Iterable[dict[str, Any] | None] | None = None) -> NDArray:
        """``add``, in place of the documents whose ids are taken; what is replaced moves to the end of the order of adding."""
        with self._store.transaction() as transaction:
            chosen = door.ids(ids, kind=transaction.schema.id_kind)
            transaction.remove(transaction.known(np.unique(chosen)))
            return ingest(transaction, doc_vectors, chosen, metadata)

    def remove(self, ids: Iterable[Any] | None = None, *, filter: Any = None, missing: str = "raise") -> int:
        """Remove documents by id, or those that a ``filter`` lets through, as in ``search``; return how many there were.

        Raises:
            UnknownIdError (a KeyError): an id is unknown, unless ``missing="ignore"``; nothing is removed then.
            ValueError: both ids and filter, or neither. FilterError, ShapeError: the filter does not fit.
        """
        ignore = _ignores(missing)
        if (ids is None) == (filter is None):
            raise ValueError(f"ids, filter: expected one of them, got {'neither' if ids is None else 'both'}")
        with self._store.transaction() as transaction:
            if filter is not None:
                snapshot = self._store.snapshot  # what stands until this transaction ends
                rows = self._kept(snapshot, transaction.schema, filter)
                transaction.remove(snapshot.ids_at(rows))
                return len(rows)
            chosen = np.unique(door.ids(ids, kind=transaction.schema.id_kind))
            known = transaction.known(chosen)
            if len(known) < len(chosen) and not ignore:
                raise _unknown(chosen[~np.isin(chosen, known)], "; missing='ignore' passes over them")
            transaction.remove(known)
        return len(known)

    def update_metadata(self, ids: Iterable[Any], metadata: Iterable[dict[str, Any] | None]) -> None:
        """Replace the metadata of documents; ``None`` leaves a document without. Vectors and order stay as they are.

        Args:
            ids: N ids, each once.
            metadata: N dicts of JSON values, or ``None``.

        Raises:
            UnknownIdError, DuplicateIdError: an id is unknown or given twice; nothing is changed then.
            ShapeError, TypeError, ValueError: not one dict of JSON values for each id.
        """
        names: set[str] = set()
        texts = list(door.metadata(metadata, names))
        with self._store.transaction() as transaction:
            chosen = door.ids(ids, kind=transaction.schema.id_kind)
            if len(chosen) != len(texts):
                raise ShapeError(f"metadata: expected {len(chosen)}, one for each id, got {len(texts)}")
            transaction.update_metadata(chosen, texts, names)

    # searches

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        budget: int | tuple[int, int] | None = None,
        candidates: int | None = None,
        filter: Any = None,
        plan: Plan | PlannedSearch | str | None = None,
        scorer: str = "auto",
    ) -> SearchResult:
        """The ``k`` best documents for each query.

        Args:
            queries: one query [R, d], a batch [B, R, d], or a list of [r_i, d].
            k: hits per query; where there are fewer, the rest is -inf and -1 (``None`` for text ids).
            budget: ``(r_q, r_c)``, or one number for both sides, cut to each; everything by default. What has fewer tokens than
                the budget uses all it has.
            candidates: let a scan of level 0 propose so many documents, and rank those at the budget.
            filter: which documents to search among; applied before scoring. Ids; a boolean mask with one entry for each
                document in the order of iteration; or a dict of metadata fields, see below, such as
                ``{"lang": "en", "year": {"$gte": 2020}}``.
            plan: stages such as ``"(1,1)>4000 (4,8)>400 (16,64)"``, instead of budget and candidates.
            scorer: "auto" takes the first scorer that can; a name takes that one or raises BackendError.

        Returns:
            A ``SearchResult``, which unpacks as ``scores, ids``, both [B, k]. It is exact without candidates and plan.

        A dict as filter lets documents through that meet all of its entries. A value means ``$eq``; operators are ``$eq $ne $gt
        $gte $lt $lte $in $nin``, and ``$and`` and ``$or`` with lists of dicts. They work as in MongoDB: numbers compare with
        numbers (``True`` and ``False`` are 1 and 0, integers beyond 64 bits are floats), text with text by code points, and
        never one with the other. ``None`` equals null and a field that is missing. ``$ne`` and ``$nin`` let through all that
        ``$eq`` and ``$in`` do not, documents without the field or without metadata included. Lists and dicts as stored values
        equal nothing and are in no range. A key is a field's whole name; dots in it mean nothing.

        Raises:
            ShapeError, TypeError, ValueError, NonFiniteError, FilterError, PlanError: what was given does not fit.
        """
        k = integer("k", k)
        search = self._search(queries, scorer, filter)
        chosen, steps = self._steps(search, budget, candidates, plan, k)
        return _result(search, executor.run(search, steps, k), chosen, queries)

    def rerank(
        self,
        queries: Any,
        candidate_ids: Any,
        k: int | None = None,
        budget: int | tuple[int, int] | None = None,
        *,
        scorer: str = "auto",
    ) -> SearchResult:
        """The ``k`` best (all, by default) of the documents named in ``candidate_ids``: [C] for every query, or one list for
        each, of any lengths. An id that is repeated counts once; -1 and ``None``, as results are padded with, are passed over.

        Raises:
            UnknownIdError: an id is unknown. Else as ``search``.
        """
        search = self._search(queries, scorer)
        rows = self._candidate_rows(search, candidate_ids, "candidate_ids")
        k = max(rows.shape[1], 1) if k is None else integer("k", k)
        chosen, steps = self._steps(search, budget, None, None, k)
        return _result(search, executor.run(search, steps, k, rows), chosen, queries)

    def score(self, queries: Any, ids: Any, budget: int | tuple[int, int] | None = None, *, scorer: str = "auto") -> Any:
        """The scores float32 [B, C] of the documents named in ``ids``: [C] for every query, or one list for each; -inf pads
        lists that are shorter than others, and stands where an id is -1 or ``None``. Raises as ``rerank``."""
        search = self._search(queries, scorer)
        rows = self._candidate_rows(search, ids, "ids")
        return door.like(executor.gather(search, self._budget(search, budget), rows), queries)

    def plan(
        self,
        k: int = 10,
        budget: int | tuple[int, int] | None = None,
        *,
        candidates: int | None = None,
        filter: Any = None,
        plan: Plan | PlannedSearch | str | None = None,
        queries: int = 1,
        query_tokens: int | None = None,
        scorer: str = "auto",
    ) -> PlannedSearch:
        """What ``search`` would do for ``queries`` queries of ``query_tokens`` tokens: print it for the rows, bytes and scorer
        of each stage. Candidates are taken to be as long as documents are on average.

        Raises:
            ValueError: the index was made without ``query_tokens``, and neither this call nor its budget tells. Else as
                ``search``.
        """
        plan = as_plan(plan)
        tokens = self._store.schema.query_tokens if query_tokens is None else integer("query_tokens", query_tokens)
        if tokens is None:
            tokens = _named(budget, plan).r_q
        if not tokens:
            raise ValueError("query_tokens: this index takes queries of any number of tokens; say how many with query_tokens=")
        shape = (integer("queries", queries), tokens, self._store.schema.dim or 1)
        search = self._search(np.zeros(shape, np.float32), scorer, filter)
        chosen, steps = self._steps(search, budget, candidates, plan, integer("k", k))
        return PlannedSearch(chosen, queries, tuple(executor.preview(search, steps)))

    def explain(self, query: Any, id: Any, budget: int | tuple[int, int] | None = None) -> Explanation:
        """Why the document ``id`` scores what it does for one query [R, d]: the document token that each query token chose,
        their similarities, and how the score builds up by budget.

        Raises:
            UnknownIdError: the id is unknown. ShapeError: more than one query.
        """
        search = self._search(query, "auto")
        if len(search.queries) != 1:
            raise ShapeError(f"query: expected one query (R, d), got {len(search.queries)}")
        (row,) = self._rows(search.snapshot, door.ids([id], "id", search.schema.id_kind))
        tokens = search.codec.decode(search.queries.parts)[0, : search.queries.lengths[0]]
        document = tokens_at(search.snapshot, int(row), search.codec)
        return explain(id, tokens, document, search.snapshot.levels, self._budget(search, budget))

    # reads

    def get(self, ids: Iterable[Any], *, missing: str = "raise") -> list[Document]:
        """The documents of those ids, in that order, their tokens decoded.

        Raises:
            UnknownIdError: an id is unknown; with ``missing="ignore"`` it is left out.
        """
        ignore = _ignores(missing)
        snapshot = self._store.snapshot
        schema = self._store.schema
        names = door.ids(ids, kind=schema.id_kind)
        rows = self._rows(snapshot, names, ignore=ignore, advice="; missing='ignore' leaves them out")
        metadata = self._store.metadata(snapshot, rows)
        return [
            Document(id_, tokens_at(snapshot, int(row), find_codec(schema.codec)), described)
            for id_, row, described in zip(snapshot.ids_at(rows).tolist(), rows, metadata)
        ]

    def __len__(self) -> int:
        return len(self._store.snapshot)

    def __contains__(self, id: Any) -> bool:
        snapshot = self._store.snapshot
        try:
            return bool(self._store.locate(snapshot, door.ids([id]))[0] >= 0)
        except (TypeError, ValueError):
            return False  # what can't be an id is not in the index

    def __iter__(self) -> Iterator[Any]:
        """The ids, in the order of addition."""
        snapshot = self._store.snapshot
        return iter(snapshot.ids_at(snapshot.order).tolist())

    def memory(self) -> dict[str, Any]:
        """Bytes held: per level and place, per document, and the catalog apart. Under a memory limit "ram" tells what is kept
        in memory of what is on "disk"."""
        return self._store.memory()

    @staticmethod
    def estimate(n: int, doc_tokens: int, dim: int, codec: str = "float16") -> SizeEstimate:
        """How many bytes an index of ``n`` documents takes, before it is built; print it for a table."""
        levels = Levels.doubling(integer("doc_tokens", doc_tokens))
        return estimate(integer("n", n, least=0, most=2**63), levels, integer("dim", dim), find_codec(codec))

    def __repr__(self) -> str:
        if self._store.closed:
            return "MetaIndex(closed)"
        schema, snapshot = self._store.schema, self._store.snapshot
        place = "in memory" if self._store.path is None else f"at {os.fspath(self._store.path)!r}"
        tokens = "|".join(map(str, snapshot.levels.edges)) if len(snapshot) or schema.doc_tokens else "open"
        nbytes = sum(segment.nbytes for segment in snapshot.segments)
        return (
            f"MetaIndex({len(snapshot):,} documents, levels {tokens}, d = {schema.dim or 'open'}, {schema.codec}, "
            f"{human(nbytes)} in {len(snapshot.segments)} segments, {place})"
        )

    # lifetime

    @property
    def schema(self) -> Schema:
        """What the index takes: d, T, R, levels, codec, nested, normalize."""
        return self._store.schema

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index to a folder, from which ``open`` reads it; removed documents are left out.

        Raises:
            FileExistsError: ``path`` exists; with ``overwrite`` an index is replaced, never anything else.
        """
        self._store.save(path, overwrite=overwrite)

    def snapshot(self, dst: str | os.PathLike[str]) -> None:
        """Copy the last commit to a new folder ``dst``, which is an index of its own from then on.

        Vectors become hard links where the file system can, and are copied where it can't, so that this takes seconds and next
        to no space. ``compact(purge=True)`` of this index later does not reach the copy. In memory this is ``save``.

        Raises:
            FileExistsError: something stands at ``dst``.
        """
        self._store.snapshot_to(dst)

    def compact(self, *, purge: bool = False) -> None:
        """Write segments that hold removed documents anew without them, and merge small ones.

        Searches go on meanwhile. On disk this needs room for what is written anew. With ``purge`` no file of the index holds
        the bytes of a removed document when this returns: no vector, no id, no metadata. Copies made before are not reached.

        Raises:
            IndexLockedError: with ``purge``, another handle reads the index, or this process uses an older snapshot of it;
                nothing is changed then.
        """
        self._store.compact(purge=purge)

    def verify(self, *, sample: int = 100) -> Verification:
        """Read every file that stands now, and say what is damaged: checksums, structure, values, and whether catalog and
        vectors agree. Then ``sample`` documents, drawn at random, are scored by the automatic scorer and by the reference.

        Damage is told, never raised. A writer, of this handle too, may go on meanwhile.

        Raises:
            CapacityError: a document of the sample does not fit into ``memory_limit``.
        """
        sample, snapshot = integer("sample", sample, least=0), self._store.snapshot
        found = self._store.verify()
        return found if not sample else compared(found, self._scorers, self._store.schema, snapshot, sample, self._threads)

    @staticmethod
    def repair(path: str | os.PathLike[str], *, apply: bool = False) -> Repair:
        """What must be dropped from a damaged index so that the rest can be used; with ``apply`` it is dropped.

        The writer's lock is taken. Documents whose vectors are damaged are lost, all others are kept as they are.

        Raises:
            FileNotFoundError, NotADirectoryError: there is nothing to repair. IndexLockedError: another writer has it.
        """
        return repair(path, apply=apply)

    def refresh(self) -> None:
        """See what other processes committed since this index was opened.

        Raises:
            ForkedProcessError: the handle was opened by the process that this one was forked from.
        """
        self._store.refresh()

    def close(self) -> None:
        """Let go of files and memory; every later call but this one raises ClosedError."""
        self._store.close()

    def __enter__(self) -> MetaIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # what searches have in common

    def _search(self, queries: Any, scorer: str, filter: Any = None) -> executor.Search:
        snapshot = self._store.snapshot
        schema = self._store.schema  # read second: a first add in between fills it in before the snapshot shows documents
        found = find_codec(schema.codec)
        expected = door.Expected("queries", ("B", "R", "d"), schema.query_tokens, schema.dim, found, schema.normalize)
        tokens = door.queries(queries, expected)
        encoded = Queries(compiled.encode(found, tokens.values), tokens.lengths)
        kept = None if filter is None else self._kept(snapshot, schema, filter)
        return executor.Search(self._scorers, schema, snapshot, encoded, kept, scorer, self._threads)

    def _kept(self, snapshot: Snapshot, schema: Schema, filter: Any) -> NDArray[np.int64]:
        """The rows, rising, that a filter lets through."""
        if isinstance(filter, Mapping):
            return self._store.matching(snapshot, parsed(filter))
        mask = door.mask(filter, len(snapshot))
        if mask is not None:
            return np.sort(snapshot.order[mask])
        rows = np.unique(self._store.locate(snapshot, door.filter_ids(filter, schema.id_kind)))
        return rows[rows >= 0]

    def _budget(self, search: executor.Search, budget: int | tuple[int, int] | None) -> Budget:
        resolved = Budget.resolve(budget, *_sides(search, _named(budget, None)))
        self._warn_if_truncated(search, resolved.r_c)
        return resolved

    def _steps(self, search: executor.Search, budget: Any, candidates: Any, plan: Any, k: int) -> tuple[Plan, tuple[Step, ...]]:
        plan = as_plan(plan)
        sides = _sides(search, _named(budget, plan))
        resolved = None if budget is None else Budget.resolve(budget, *sides)
        if candidates is not None:
            candidates = integer("candidates", candidates, least=k)
        chosen = chosen_plan(plan, resolved, candidates, search.snapshot.levels)
        steps = chosen.steps(*sides, k)
        self._warn_if_truncated(search, min(step.budget.r_c for step in steps))
        return chosen, steps

    def _warn_if_truncated(self, search: executor.Search, r_c: int) -> None:
        if r_c < search.snapshot.levels.tokens and search.schema.nested is False and not self._warned:
            self._warned = True
            warnings.warn(
                "this index was told that its vectors are not nested, so a budget that truncates documents drops tokens at "
                "random; order them with metaindex.nest first",
                stacklevel=4,
            )

    def _candidate_rows(self, search: executor.Search, ids: Any, argument: str) -> NDArray[np.int64]:
        lists = door.id_lists(ids, len(search.queries), argument, search.schema.id_kind)
        rows = np.full((len(lists), max((each.length for each in lists), default=0)), -1, dtype=np.int64)
        for row, each in zip(rows, lists):
            row[each.places] = self._rows(search.snapshot, each.ids)
        return rows

    def _rows(self, snapshot: Snapshot, ids: NDArray, *, ignore: bool = False, advice: str = "") -> NDArray[np.int64]:
        rows = self._store.locate(snapshot, ids)
        if (unknown := rows < 0).any():
            if not ignore:
                raise _unknown(ids[unknown], advice)
            rows = rows[~unknown]
        return rows


def _threads(num_threads: int | None) -> int:
    if num_threads is not None:
        return integer("num_threads", num_threads, most=1024)
    return usable_cores()


def _fields(names: Any) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"fields: expected a list of names, got {type(names).__name__}")
    return tuple(names)


def _limit(memory_limit: int | None) -> int | None:
    return None if memory_limit is None else integer("memory_limit", memory_limit, most=2**63 - 1)


def _levels(edges: Sequence[int] | None, doc_tokens: int | None) -> Levels:
    levels = Levels((1,)) if edges is None else Levels.of(edges)
    if edges is not None and doc_tokens is not None and levels.tokens != doc_tokens:
        raise ValueError(f"levels: expected edges that end at doc_tokens = {doc_tokens}, got {levels.tokens}")
    return levels if doc_tokens is None else levels.extended_to(doc_tokens)


def _named(budget: Any, plan: Plan | None) -> Budget:
    """The largest numbers of tokens that a search's arguments name; 0 where they name none."""
    if plan is not None:
        return plan.reach
    if isinstance(budget, (tuple, list)) and len(budget) == 2 and all(isinstance(side, (int, np.integer)) for side in budget):
        return Budget(*map(int, budget))
    return Budget(0, 0)


def _sides(search: executor.Search, named: Budget) -> tuple[int, int]:
    """R and T that budgets are held against. What the index was not told, it can't hold against anybody."""
    query_tokens = search.schema.query_tokens or max(search.queries.parts.codes.shape[1], named.r_q)
    tokens = search.snapshot.levels.tokens
    if not search.snapshot.rows and search.schema.doc_tokens is None:
        tokens = max(tokens, named.r_c)
    return query_tokens, tokens


def _result(search: executor.Search, found: executor.Found, plan: Plan, queries: Any) -> SearchResult:
    *climbing, last = found.steps
    text = " ".join([*map(str, climbing), str(last.budget)]) if found.stats else str(plan)
    ids = search.snapshot.ids_at(np.maximum(found.rows, 0)) if search.snapshot.rows else found.rows.copy()
    if search.schema.id_kind == "text":
        ids = ids.astype(object)
    missing: Any = None if ids.dtype == object else -1
    ids[found.rows < 0] = missing
    return SearchResult(door.like(found.scores, queries), door.like(ids, queries), found.exact, text, found.stats)


def _ignores(missing: str) -> bool:
    if missing not in ("raise", "ignore"):
        raise ValueError(f"missing: expected 'raise' or 'ignore', got {missing!r}")
    return missing == "ignore"


def _unknown(ids: NDArray, advice: str) -> UnknownIdError:
    listed = ", ".join(map(repr, ids[:5].tolist()))
    more = f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""
    return UnknownIdError(f"ids: {listed}{more} not in the index{advice}")
