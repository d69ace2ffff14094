"""The coarse stage of one index: what serves a search, or why nothing does."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.coarse import gpu, kinds, library, spec, upkeep
from metaindex.coarse.filled import Filled, Places
from metaindex.coarse.keeper import Keeper
from metaindex.coarse.vectors import Vectors
from metaindex.errors import BackendError, MissingDependencyError
from metaindex.storage.snapshot import Snapshot
from metaindex.storage.store import Store


class Ready(NamedTuple):
    """A coarse index that can serve searches of one snapshot."""

    filled: Filled
    places: Places
    vectors: Vectors
    copy: gpu.GpuCopy | None
    why: str

    @property
    def unseen(self) -> NDArray[np.int64]:
        """The rows, rising, of standing documents that it does not have yet."""
        return self.places.unseen

    def candidates(
        self,
        tokens: NDArray[np.float32],
        lengths: NDArray[np.int32],
        count: int,
        allowed: NDArray[np.bool_] | None = None,
        values: Mapping[str, int] | None = None,
        threads: int = 1,
    ) -> NDArray[np.int64]:
        """The rows int64 [B, count] that it proposes for queries [B, R, d] of ``lengths`` [B]; -1 where it finds fewer.

        ``allowed`` bool [rows] says which rows may be proposed, ``values`` FAISS's search parameters by name.
        """
        queries = np.ascontiguousarray(self.vectors.queries(tokens, lengths))
        chosen = self.settings(values or {}, count)
        if self.copy is None:
            return self.filled.search(queries, count, self.places, allowed, chosen, threads)
        positions = self.copy.search(queries, count, chosen)
        known = (positions >= 0) & (positions < len(self.places.rows_at))
        return np.where(known, self.places.rows_at[np.where(known, positions, 0)], -1)

    def settings(self, values: Mapping[str, int], count: int) -> dict[str, int]:
        """The search parameters in force: those that are given, and in any case how many lists are looked into."""
        chosen = dict(values)
        if self.filled.lists and "nprobe" in self.filled.defaults:
            nprobe = upkeep.default_nprobe(self.filled.lists, len(self.places.sequence), count)
            chosen.setdefault("nprobe", nprobe)
        return chosen

    def work(self, queries: int, count: int, values: Mapping[str, int]) -> tuple[int, int]:
        """How many documents are compared and how many bytes of them read, on average. A graph tells neither: 0."""
        documents = len(self.places.sequence)
        if self.filled.is_graph or not documents:
            return 0, 0
        compared = documents
        if self.filled.lists:
            compared = round(documents * min(1.0, self.settings(values, count).get("nprobe", 1) / self.filled.lists))
        return compared * queries, min(documents, compared * queries) * (self.filled.nbytes // documents)


class CoarseStage:
    """Made by the facade for an index whose schema has a coarse stage; ``text`` is what the schema says of it.

    ``trusted``: whether FAISS may read the index's file, once its checksum is found right. ``device``: where searches run.
    """

    def __init__(self, store: Store, text: str, threads: int, *, trusted: bool = False, device: str = "cpu") -> None:
        self.text = text
        self._store, self._device = store, device
        self._unknown, self._spec = "", spec.CoarseSpec(None, "Flat")
        try:
            self._spec = spec.parsed(text)
        except ValueError as error:  # a later version may know it
            self._unknown = str(error)
        self._keeper = Keeper(store, self._spec, threads, trusted=trusted)
        self._copied: tuple[NDArray[np.int64], gpu.GpuCopy] | None = None
        self._copying = threading.Lock()

    # searches

    @property
    def scans(self) -> bool:
        """Whether a scan of level 0 finds what the coarse index is to find: where it goes by the first token."""
        return self._spec.fde is None

    def wrong_parameter(self, name: str, value: int) -> str | None:
        """Why a plan can't set a parameter of FAISS's to ``value``; ``None`` where it can.

        Raises:
            MissingDependencyError: FAISS is not installed. BackendError: this version does not know this kind of stage.
        """
        library.load()
        self._check_known()
        return None if self._store.schema.dim is None else kinds.wrong_parameter(self._keeper.empty(), name, value)

    def ready(
        self, snapshot: Snapshot, count: int, *, filtered: bool = False, names: frozenset[str] = frozenset()
    ) -> Ready | str:
        """What serves a search of ``snapshot``, which has documents, for ``count`` candidates, or why nothing does.

        ``filtered``: whether some rows of the snapshot must not be found. ``names``: of parameters that are asked for.

        Raises:
            MissingDependencyError: FAISS is not installed. BackendError: this version does not know this kind of stage.
        """
        library.load()
        self._check_known()
        filled = self._keeper.look(snapshot)
        if filled is None:
            return self._why_not(snapshot)
        places = filled.places(snapshot)
        leaves_out = filtered or bool(np.any(places.rows_at < 0))
        chosen = gpu.choose(self._device, gpu.count(), count, leaves_out=leaves_out, names=names, scans=self.scans)
        copy = None
        if chosen.where == "gpu":
            try:
                copy = self._copy(filled, places)
            except (RuntimeError, MemoryError) as error:  # no room, or a kind that there is none of on a GPU
                chosen = gpu.Choice("scan" if self.scans else "host", f"FAISS can't search it on a GPU ({error})")
        if chosen.where == "scan":
            return chosen.why
        why = f"{self.text} over {len(places.sequence):,} documents, {chosen.why}"
        if len(places.unseen):
            why += f"; {len(places.unseen):,} new ones beside it"
        return Ready(filled, places, self._keeper.vectors(), copy, why)

    def _check_known(self) -> None:
        if self._unknown:
            raise BackendError(f"this version can't read what the coarse stage of this index is: {self._unknown}")

    def _why_not(self, snapshot: Snapshot) -> str:
        if self._keeper.failure:
            return self._keeper.failure
        needed = max(upkeep.FEW, kinds.training_points(self._keeper.empty()))
        if len(snapshot) < needed:
            return f"{self.text} is built from {needed:,} documents on, there are {len(snapshot):,}"
        if self._keeper.record is not None and not self._keeper.trusted:
            return "the file of the coarse index is read only where the index is opened with trusted=True"
        return "no coarse index is built; build_coarse() makes one"

    def _copy(self, filled: Filled, places: Places) -> gpu.GpuCopy:
        with self._copying:
            if self._copied is None or self._copied[0] is not places.sequence:
                self._copied = None  # before the next one needs its room
                self._copied = places.sequence, filled.on_gpu(self._device)
            return self._copied[1]

    # upkeep

    def check_dim(self, dim: int) -> None:
        """Raises ValueError where FAISS can't make this kind of index for tokens of ``dim`` numbers. Without FAISS, and of what
        only a later version knows, nobody can say."""
        if self._unknown:
            return
        try:
            library.load()
        except MissingDependencyError:
            return
        kinds.new(self._spec.factory, self._spec.size(dim))

    def keep_up(self) -> None:
        """After a commit: see to it that the coarse index knows what it brought. Never raises for what goes wrong in here."""
        if not self._unknown:
            self._keeper.keep_up()

    def build(self) -> None:
        """Build the coarse index from all documents now, and write its file where the index is open for writing.

        Raises:
            MissingDependencyError: FAISS is not installed. BackendError: this version does not know this kind of stage.
        """
        library.load()
        self._check_known()
        self._keeper.build()

    def purging(self) -> AbstractContextManager[None]:
        """While the block runs nothing is built; at its end what there was is forgotten."""
        return self._keeper.purging()

    def close(self) -> None:
        self._keeper.close()
        self._copied = None

    def memory(self) -> dict[str, Any]:
        """``documents`` in the coarse index, ``unseen`` ones that it lacks, the bytes it takes in "ram" and of its file on
        "disk"; ``failure`` says what went wrong last, if anything did."""
        snapshot, keeper = self._store.snapshot, self._keeper
        filled, record = keeper.filled, self._store.coarse_record()
        return {
            "kind": self.text,
            "documents": 0 if filled is None else len(filled.sequence),
            "unseen": keeper.unseen(snapshot),
            "ram": 0 if filled is None else filled.nbytes,
            "disk": 0 if record is None else record.file.size,
            "failure": keeper.failure,
        }
