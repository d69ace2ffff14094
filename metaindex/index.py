"""``MetaIndex``: the facade. It checks what comes in, asks the store and the executor, and hands results out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metaindex import door, options
from metaindex.asking import Searches, result, unknown
from metaindex.checks import ignores, integer
from metaindex.coarse.stage import CoarseStage
from metaindex.codecs import codec as find_codec
from metaindex.codecs import compiled
from metaindex.device.residency import Residency
from metaindex.errors import EncoderMismatchError, ShapeError
from metaindex.execution import executor
from metaindex.execution.captured import CapturedSearch, captured
from metaindex.execution.explain import Explanation, explain
from metaindex.execution.sample import compared
from metaindex.execution.why_not import WhyNot
from metaindex.execution.windows import tokens_at
from metaindex.ingest import ingest
from metaindex.planning.choose import as_plan
from metaindex.planning.plan import Coarse, Plan
from metaindex.planning.preview import PlannedSearch
from metaindex.planning.size import SizeEstimate, estimate, human
from metaindex.result import Document, SearchResult
from metaindex.scoring.cpu import CpuScorer
from metaindex.scoring.cuda import CudaScorer
from metaindex.scoring.reference import ReferenceScorer
from metaindex.scoring.registry import Registry, Scorer
from metaindex.scoring.triton import TritonScorer
from metaindex.storage.repair import Repair, repair
from metaindex.storage.schema import Schema
from metaindex.storage.store import Store
from metaindex.storage.verify import Verification

if TYPE_CHECKING:
    from metaindex.tuning import Tuning


def built_in_scorers(residency: Residency | None = None) -> Registry:
    """The scorers that come with metaindex, the preferred one first: those of the GPU where the index works on one."""
    residency = Residency() if residency is None else residency
    on_device: list[Scorer] = [CudaScorer(residency), TritonScorer(residency)]
    on_host: list[Scorer] = [CpuScorer(), ReferenceScorer()]
    scorers = Registry()
    for scorer in on_device + on_host if residency.name != "cpu" else on_host + on_device:
        scorers.register(scorer)
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
        codec: "float32", "float16", "bfloat16" or "int8" (one scale per token): how documents and queries are kept. A dict
            gives token edges: ``{8: "int8", None: "float16"}`` keeps tokens below 8 in int8 and the rest in float16. They are
            edges of levels; the last codec keeps the rest, whatever its edge is.
        early: the codec of a second copy of all levels, of fewer bytes than ``codec``, such as "int8". Stages of a plan before
            the last read it where they say so, ``(4,8):int8>400``; all else goes by ``codec``.
        coarse: a FAISS index that proposes candidates, as FAISS's factory writes it: "Flat", "IVF4096,Flat", "IVF4096,PQ64x8",
            "HNSW32" (needs faiss-cpu or a GPU build of it). It goes by a document's first token. For embeddings that are not
            nested, "fde,IVF4096,Flat" goes by a fixed-dimensional encoding of all tokens; ``fde(repetitions=20,bits=3,
            inner=0,dim=10240,seed=0)`` are its settings. Searches then are approximate by default; plan="(*,*)" is exact.
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
        device: where searches run: "cpu", "cuda" or "cuda:<number>" (needs torch). "auto" takes the first GPU there is.
        device_memory_limit: the bytes of vectors that may lie on the GPU; by default what is free there, less what searches
            work with.
        placement: which levels lie on the GPU. "auto": as many as fit, shallow ones first; the others are read from pinned host
            memory. "device": all of them or CapacityError. "host": none. A number: the tokens below it or CapacityError.

    Any number of threads may search beside one that writes; a search sees one commit from start to end.
    """

    def __init__(
        self,
        dim: int | None = None,
        doc_tokens: int | None = None,
        query_tokens: int | None = None,
        *,
        levels: Sequence[int] | None = None,
        codec: str | Mapping[int | None, str] = "float16",
        early: str | None = None,
        coarse: str | None = None,
        path: str | os.PathLike[str] | None = None,
        nested: bool | None = None,
        normalize: bool = False,
        fields: Sequence[str] | None = None,
        num_threads: int | None = None,
        memory_limit: int | None = None,
        device: Any = "auto",
        device_memory_limit: int | None = None,
        placement: str | int = "auto",
    ) -> None:
        residency = options.residency(device, device_memory_limit, placement)
        doc_tokens = None if doc_tokens is None else integer("doc_tokens", doc_tokens)
        bands = options.codecs(codec, doc_tokens)
        schema = Schema(
            dim=None if dim is None else integer("dim", dim),
            doc_tokens=doc_tokens,
            query_tokens=None if query_tokens is None else integer("query_tokens", query_tokens),
            levels=options.levels(levels, doc_tokens, bands),
            codec=str(bands),
            early=options.early(early, bands),
            nested=None if nested is None else bool(nested),
            normalize=bool(normalize),
            fields=options.fields(fields),
            coarse=options.coarse(coarse, dim),
        )
        threads, limit = options.threads(num_threads), options.memory_limit("memory_limit", memory_limit)
        encode = partial(compiled.encode, num_threads=threads)
        self._serve(Store.create(schema, path, encode=encode, memory_limit=limit), threads, residency)
        self._nested_given = nested is not None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        verify: bool = False,
        trusted: bool = False,
        num_threads: int | None = None,
        memory_limit: int | None = None,
        device: Any = "auto",
        device_memory_limit: int | None = None,
        placement: str | int = "auto",
    ) -> MetaIndex:
        """Open the index at ``path`` to read ("r"), or to write as well ("r+"). No vector is read until a search needs it.

        ``verify`` first compares every file with its checksum, which reads them all. Files are memory-mapped; with
        ``memory_limit`` they are read, and at most so many bytes of vectors are in memory, over all searches that run: what
        fits is kept, level 0 first. A file that is cut short by others is CorruptIndexError then, where a map ends the process.

        ``trusted`` lets FAISS read the file of the coarse index. A checksum tells damage, not malice, and FAISS was not made
        for the files of strangers: say so of your own indexes only. Without it a search does the same by a scan of level 0, or
        by comparing everything, until ``build_coarse()`` or a write has built the coarse index from the vectors.

        Raises:
            FileNotFoundError, NotADirectoryError, NotAnIndexError, UnsupportedFormatError: there is nothing to open.
            CorruptIndexError: a file is missing, truncated or changed.
        """
        index = cls.__new__(cls)
        residency = options.residency(device, device_memory_limit, placement)
        threads, limit = options.threads(num_threads), options.memory_limit("memory_limit", memory_limit)
        encode = partial(compiled.encode, num_threads=threads)
        store = Store.open(path, mode, verify=verify, encode=encode, memory_limit=limit)
        index._serve(store, threads, residency, trusted=bool(trusted))
        return index

    def _serve(self, store: Store, threads: int, residency: Residency, *, trusted: bool = False) -> None:
        self._store, self._residency = store, residency
        # Of an index that is opened, and has an encoder, nobody knows any more who said that its vectors are nested.
        self._nested_given = store.schema.nested is not None and store.schema.encoder is None
        self._scorers = built_in_scorers(residency)
        self._threads = threads
        kind = store.schema.coarse
        self._coarse = None
        if kind is not None:
            self._coarse = CoarseStage(store, kind, threads, trusted=trusted, device=residency.name)
        self._searches = Searches(store, self._scorers, threads, self._coarse)

    def _keep_up(self) -> None:
        """After a commit: the coarse stage follows."""
        if self._coarse is not None:
            self._coarse.keep_up()

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
            ValueError: these are the first documents, and FAISS can't make the coarse stage for vectors of their d.
        """
        return self._write(doc_vectors, ids, metadata)

    def upsert(self, doc_vectors: Any, ids: Iterable[Any], metadata: Iterable[dict[str, Any] | None] | None = None) -> NDArray:
        """``add``, in place of the documents whose ids are taken; what is replaced moves to the end of the order of adding."""
        return self._write(doc_vectors, ids, metadata, replacing=True)

    def _write(self, vectors: Any, ids: Any, metadata: Any, *, replacing: bool = False, encoder: Any = None) -> NDArray:
        """Add documents, in place of those whose ids are taken or not, and say in the same commit which encoder made them."""
        with self._store.transaction() as transaction:
            if encoder is not None:
                transaction.set_schema(self._told(transaction.schema, encoder))
            if replacing:
                ids = door.ids(ids, kind=transaction.schema.id_kind)
                transaction.remove(transaction.known(np.unique(ids)))
            check_dim = None if self._coarse is None else self._coarse.check_dim
            added = ingest(transaction, vectors, ids, metadata, check_dim)
        self._keep_up()
        return added

    def remove(self, ids: Iterable[Any] | None = None, *, filter: Any = None, missing: str = "raise") -> int:
        """Remove documents by id, or those that a ``filter`` lets through, as in ``search``; return how many there were.

        Raises:
            UnknownIdError (a KeyError): an id is unknown, unless ``missing="ignore"``; nothing is removed then.
            ValueError: both ids and filter, or neither. FilterError, ShapeError: the filter does not fit.
        """
        ignore = ignores(missing)
        if (ids is None) == (filter is None):
            raise ValueError(f"ids, filter: expected one of them, got {'neither' if ids is None else 'both'}")
        with self._store.transaction() as transaction:
            if filter is not None:
                snapshot = self._store.snapshot  # what stands until this transaction ends
                known = snapshot.ids_at(self._searches.kept(snapshot, transaction.schema, filter))
            else:
                chosen = np.unique(door.ids(ids, kind=transaction.schema.id_kind))
                known = transaction.known(chosen)
                if len(known) < len(chosen) and not ignore:
                    raise unknown(chosen[~np.isin(chosen, known)], "; missing='ignore' passes over them")
            transaction.remove(known)
        self._keep_up()
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
            budget: ``(r_q, r_c)``, or one number for both sides, cut to each. What has fewer tokens than the budget uses all it
                has. Without budget, candidates and plan the index's ``default_plan`` runs, where it has one that fits the
                queries and ``k``; else everything is compared, or what the coarse stage proposes.
            candidates: let the coarse stage, or without one a scan of level 0, propose so many documents, and rank those at the
                budget. In an index with a coarse stage it is max(1000, 20 k) where neither this nor a plan is given.
            filter: which documents to search among; applied before scoring. Ids; a boolean mask with one entry for each
                document in the order of iteration; or a dict of metadata fields, see below, such as
                ``{"lang": "en", "year": {"$gte": 2020}}``.
            plan: stages such as ``"(1,1)>4000 (4,8)>400 (16,64)"`` or ``"coarse(nprobe=16)>4000 (16,64)"``, instead of budget
                and candidates.
            scorer: "auto" takes the first scorer that can; a name takes that one or raises BackendError.

        Returns:
            A ``SearchResult``, which unpacks as ``scores, ids``, both [B, k]. It is exact without candidates, plan, the default
            one included, and coarse stage; ``exact`` tells.

        A dict as filter lets documents through that meet all of its entries. A value means ``$eq``; operators are ``$eq $ne $gt
        $gte $lt $lte $in $nin``, and ``$and`` and ``$or`` with lists of dicts. They work as in MongoDB: numbers compare with
        numbers (``True`` and ``False`` are 1 and 0, integers beyond 64 bits are floats), text with text by code points, and
        never one with the other. ``None`` equals null and a field that is missing. ``$ne`` and ``$nin`` let through all that
        ``$eq`` and ``$in`` do not, documents without the field or without metadata included. Lists and dicts as stored values
        equal nothing and are in no range. A key is a field's whole name; dots in it mean nothing.

        Raises:
            ShapeError, TypeError, ValueError, NonFiniteError, FilterError, PlanError: what was given does not fit.
            MissingDependencyError: the coarse stage is asked, and FAISS is not installed.
            BackendError: a scorer or FAISS can't serve what is asked.
        """
        k = integer("k", k)
        search = self._searches.prepare(queries, scorer, filter)
        chosen, steps = self._searches.steps(search, budget, candidates, plan, k)
        return result(search, executor.run(search, steps, k), chosen, queries)

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
        search = self._searches.prepare(queries, scorer)
        rows = self._searches.candidate_rows(search, candidate_ids, "candidate_ids")
        k = max(rows.shape[1], 1) if k is None else integer("k", k)
        chosen, steps = self._searches.steps(search, budget, None, None, k, default=False)
        return result(search, executor.run(search, steps, k, rows), chosen, queries)

    def score(self, queries: Any, ids: Any, budget: int | tuple[int, int] | None = None, *, scorer: str = "auto") -> Any:
        """The scores float32 [B, C] of the documents named in ``ids``: [C] for every query, or one list for each; -inf pads
        lists that are shorter than others, and stands where an id is -1 or ``None``. Raises as ``rerank``."""
        search = self._searches.prepare(queries, scorer)
        rows = self._searches.candidate_rows(search, ids, "ids")
        return door.like(executor.gather(search, self._searches.budget(search, budget), rows), queries)

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
        plan, queries = as_plan(plan), integer("queries", queries)
        search = self._searches.prepare_empty(queries, query_tokens, budget, plan, scorer, filter)
        chosen, steps = self._searches.steps(search, budget, candidates, plan, integer("k", k))
        return PlannedSearch(chosen, queries, tuple(executor.preview(search, steps)))

    def tune(
        self,
        queries: Any,
        k: int = 10,
        recall: float = 0.99,
        objective: str = "latency",
        *,
        qrels: Sequence[Mapping[Any, float]] | None = None,
        budget: int | tuple[int, int] | None = None,
        plans: Iterable[Plan | str] | None = None,
        coarse: Iterable[Coarse | str] | None = None,
        filter: Any = None,
        batch: int = 32,
        seconds: float = 300.0,
        seed: int = 0,
        progress: Callable[[float, str], None] | None = None,
        scorer: str = "auto",
    ) -> Tuning:
        """The cheapest plan that finds what the exact search finds; print the result for the plans that were measured.

        Half of the queries train: they tell where in each stage the right documents stand, from which plans are chosen in
        numbers. The other half is held out: on it the best plans are measured, and the cheapest that reaches the target is
        taken. ``set_default(tuning)`` makes it the plan of this index's searches.

        Args:
            queries: at least 20, as in ``search``, and like those to come; some 200 or more tell a recall of 0.99 from 0.98.
            recall: the least mean recall@k against the exact result at ``budget`` (everything, by default), counted by score.
            objective: "latency", the time of single queries; "throughput", of batches of ``batch``; "bytes" read per query.
            qrels: for each query the gains of its relevant documents by id. The target is then the share ``recall`` of the
                mean nDCG@k of the exact search.
            plans: more plans to measure. coarse: coarse stages to try first, with their parameters, in place of those that the
                index's kind suggests, from few lists or a narrow beam to many; ``[]`` for none.
            seconds: about how long this may take. progress: called with the share that is done and what comes next.
            seed: which queries train. The same seed gives the same plans to choose from, but for what depends on time.

        Raises:
            ValueError: too few queries, or an argument out of bounds. Else as ``search``.
        """
        from metaindex.tuning.clock import Clock  # a search needs nothing of this
        from metaindex.tuning.request import Request
        from metaindex.tuning.tune import tune

        asked = Request.of(k, recall, objective, qrels, plans, coarse, batch, seed)
        clock = Clock(seconds, progress)
        search = self._searches.prepare(queries, scorer, filter)
        return tune(self._searches, search, self._searches.budget(search, budget), asked, clock)

    @property
    def default_plan(self) -> Plan | None:
        """The plan of searches that name neither budget, candidates nor plan; ``None``: they compare everything. May be set."""
        text = self._store.schema.default_plan
        return None if text is None else Plan.parse(text)

    @default_plan.setter
    def default_plan(self, plan: Plan | PlannedSearch | Tuning | str | None) -> None:
        self.set_default(plan)

    def set_default(self, plan: Plan | PlannedSearch | Tuning | str | None) -> None:
        """Make ``plan``, or that of a tuning, the index's ``default_plan``, in one commit; ``None`` takes it away.

        Raises:
            PlanError: no search of this index could run it. ReadOnlyError: the index was opened for reading.
        """
        plan = as_plan(plan)
        if plan is not None:
            self._searches.check_default(plan)
        with self._store.transaction() as transaction:
            transaction.set_schema(replace(transaction.schema, default_plan=None if plan is None else str(plan)))

    @property
    def encoder(self) -> str | None:
        """The fingerprint of the encoder that makes this index's vectors; ``None`` where nobody said."""
        return self._store.schema.encoder

    def check_encoder(self, encoder: Any) -> None:
        """Whether ``encoder`` makes vectors that can be compared with those of this index.

        Args:
            encoder: an encoder with a ``fingerprint``, or a fingerprint. It passes where the index has none.

        Raises:
            EncoderMismatchError: the index has documents of another encoder.
        """
        given, known = getattr(encoder, "fingerprint", encoder), self.encoder
        if known not in (None, given) and len(self):
            raise EncoderMismatchError(
                f"encoder: this index holds vectors of {known}, got {given}; open it with the encoder that made them, or "
                f"encode its documents anew"
            )

    def set_encoder(self, encoder: Any) -> None:
        """Store which encoder makes this index's vectors, in one commit, and whether they are nested, unless the index was made
        with ``nested=``: while it is empty the last encoder's word counts, later the first one's that knew. Of documents that
        stand without an encoder your word is taken. ``None`` takes it away.

        Args:
            encoder: an encoder with a ``fingerprint``, or a fingerprint: 1 to 256 letters, digits and ``_ . : -``.

        Raises:
            EncoderMismatchError: the index has documents of another encoder. ReadOnlyError: it was opened for reading.
            ValueError: the fingerprint has other characters.
        """
        with self._store.transaction() as transaction:
            transaction.set_schema(self._told(transaction.schema, encoder))

    def _told(self, schema: Schema, encoder: Any) -> Schema:
        """``schema`` with what ``encoder`` says of itself. Raises EncoderMismatchError."""
        if encoder is not None:
            self.check_encoder(encoder)
        fingerprint, nested = getattr(encoder, "fingerprint", encoder), getattr(encoder, "nested", None)
        if schema.nested is None or (encoder is not None and fingerprint != schema.encoder and self._takes_nested):
            schema = replace(schema, nested=nested)
        return replace(schema, encoder=fingerprint)

    @property
    def _takes_nested(self) -> bool:
        """Whether a new encoder decides anew if vectors are nested: there are none yet, and only encoders said so before."""
        return not len(self) and not self._nested_given

    def explain(self, query: Any, id: Any, budget: int | tuple[int, int] | None = None) -> Explanation:
        """Why the document ``id`` scores what it does for one query [R, d]: the document token that each query token chose,
        their similarities, and how the score builds up by budget.

        Raises:
            UnknownIdError: the id is unknown. ShapeError: more than one query.
        """
        search = self._searches.prepare(query, "auto")
        if len(search.queries) != 1:
            raise ShapeError(f"query: expected one query (R, d), got {len(search.queries)}")
        (row,) = self._searches.rows(search.snapshot, door.ids([id], "id", search.schema.id_kind))
        return explain(
            id, executor.similarities(search, int(row)), search.snapshot.levels, self._searches.budget(search, budget)
        )

    def why_not(
        self,
        query: Any,
        id: Any,
        plan: Plan | PlannedSearch | str | None = None,
        k: int = 10,
        *,
        budget: int | tuple[int, int] | None = None,
        candidates: int | None = None,
        filter: Any = None,
        scorer: str = "auto",
    ) -> WhyNot:
        """What becomes of the document ``id`` when one query [R, d] is searched with these arguments: found, lost at a stage,
        filtered out, removed or unknown; its rank, score and margin in each stage, and its rank in the exact result. This
        takes as long as an exact search. In a batch, scores may differ by rounding from those of the query alone.

        Raises:
            ShapeError: more than one query. Else as ``search``.
        """
        return self._searches.why_not(query, id, budget, candidates, plan, integer("k", k), filter, scorer)

    def capture(
        self,
        queries: int = 1,
        query_tokens: int | None = None,
        k: int = 10,
        budget: int | tuple[int, int] | None = None,
        *,
        candidates: int | None = None,
        plan: Plan | PlannedSearch | str | None = None,
        scorer: str = "auto",
    ) -> CapturedSearch:
        """A search for batches of ``queries`` queries of ``query_tokens`` tokens that is prepared once and then replayed with
        new queries, on a GPU as one CUDA graph: no check, no allocation, no wait. It searches the documents that stand now, and
        keeps device memory of its own as long as it lives; see ``CapturedSearch``.

        Raises:
            BackendError: the index works on the CPU, or the scorer does.
            CapacityError: the memory of the device does not suffice. Else as ``plan``.
        """
        k = integer("k", k)
        search = self._searches.prepare_empty(integer("queries", queries), query_tokens, budget, as_plan(plan), scorer)
        _, steps = self._searches.steps(search, budget, candidates, plan, k, default=False)
        return captured(search, steps, k)

    # reads

    def get(self, ids: Iterable[Any], *, missing: str = "raise") -> list[Document]:
        """The documents of those ids, in that order, their tokens decoded.

        Raises:
            UnknownIdError: an id is unknown; with ``missing="ignore"`` it is left out.
        """
        ignore = ignores(missing)
        snapshot = self._store.snapshot
        schema = self._store.schema
        names = door.ids(ids, kind=schema.id_kind)
        rows = self._searches.rows(snapshot, names, ignore=ignore, advice="; missing='ignore' leaves them out")
        metadata = self._store.metadata(snapshot, rows)
        return [
            Document(id_, tokens_at(snapshot, int(row)), described)
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
        """Bytes held: per level and place, per document, and the catalog apart. An early copy counts to its level. Under a
        memory limit "ram" tells what is kept in memory of what is on "disk". "device" and "pinned" tell what searches have
        placed on the GPU, and for it in host memory. "coarse" tells of the coarse stage, whose memory no limit counts: its
        kind, how many documents it holds and lacks, what went wrong last."""
        found = self._store.memory() | {"coarse": None if self._coarse is None else self._coarse.memory()}
        placed = self._residency.memory()
        for level in found["levels"]:
            level |= {place: placed[place].get(level["tokens"][0], 0) for place in ("device", "pinned")}
        return found

    @staticmethod
    def estimate(
        n: int,
        doc_tokens: int,
        dim: int,
        codec: str | Mapping[int | None, str] = "float16",
        early: str | None = None,
    ) -> SizeEstimate:
        """How many bytes an index of ``n`` documents takes, before it is built; print it for a table."""
        doc_tokens = integer("doc_tokens", doc_tokens)
        bands = options.codecs(codec, doc_tokens)
        copy = options.early(early, bands)
        levels = options.levels(None, doc_tokens, bands)
        second = None if copy is None else find_codec(copy)
        return estimate(integer("n", n, least=0, most=2**63), levels, integer("dim", dim), bands, second)

    def __repr__(self) -> str:
        if self._store.closed:
            return "MetaIndex(closed)"
        schema, snapshot = self._store.schema, self._store.snapshot
        place = "in memory" if self._store.path is None else f"at {os.fspath(self._store.path)!r}"
        tokens = "|".join(map(str, snapshot.levels.edges)) if len(snapshot) or schema.doc_tokens else "open"
        nbytes = sum(segment.nbytes for segment in snapshot.segments)
        coarse = "" if schema.early is None else f"early {schema.early}, "
        coarse += "" if schema.coarse is None else f"coarse {schema.coarse}, "
        return (
            f"MetaIndex({len(snapshot):,} documents, levels {tokens}, d = {schema.dim or 'open'}, {schema.codec}, "
            f"{coarse}{human(nbytes)} in {len(snapshot.segments)} segments, {place})"
        )

    # lifetime

    @property
    def schema(self) -> Schema:
        """What the index takes: d, T, R, levels, codec, nested, normalize, its default plan as text, its encoder."""
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
        if self._coarse is None or not purge:
            self._store.compact(purge=purge)
        else:
            with self._coarse.purging():
                self._store.compact(purge=True)
        self._keep_up()

    def build_coarse(self) -> None:
        """Build the coarse stage's FAISS index from all documents now. Writes keep it in step by themselves, searches never
        build; this is for an index that was opened without ``trusted``, or whose file is lost or damaged, and for a moment of
        one's own choice. Where the index is open for writing, its file is written too.

        Raises:
            ValueError: there is no coarse stage, or too few documents to train it on. BackendError: FAISS can't build it.
            MissingDependencyError: FAISS is not installed.
        """
        if self._coarse is None:
            raise ValueError("this index has no coarse stage; make one with MetaIndex(coarse=...)")
        self._coarse.build()

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
        if self._coarse is not None:
            self._coarse.close()
        self._store.close()
        self._residency.forget()

    def __enter__(self) -> MetaIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
