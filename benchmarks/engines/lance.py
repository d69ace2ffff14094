"""LanceDB: a column of multi-vectors, scanned in full, and with an IVF_PQ index over all tokens."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.engines.engine import Setting

PACKAGE = "lancedb"
_BATCH = 2000


class Lance:
    """Its multi-vector columns know the cosine only, which for unit vectors is the inner product."""

    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        database = lancedb.connect(folder)
        self._table = database.create_table("documents", _batch(documents, 0))
        for start in range(_BATCH, len(documents), _BATCH):
            self._table.add(_batch(documents, start))
        self._table.create_index(metric="cosine", vector_column_name="vector")

    def settings(self) -> dict[str, Setting]:
        found: dict[str, Setting] = {f"nprobes={n}, refine_factor={r}": {"nprobes": n, "refine": r} for n, r in _PROBES}
        return {**found, "exact": {}}

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        asked = self._table.search(query).distance_type("cosine").limit(k).select(["id", "_distance"])
        if setting:
            asked = asked.nprobes(setting["nprobes"]).refine_factor(setting["refine"])
        else:
            asked = asked.bypass_vector_index()
        ids: list[int] = asked.to_arrow()["id"].to_pylist()
        return ids


_PROBES = ((5, 1), (20, 5), (50, 20))


def _batch(documents: NDArray, start: int) -> pa.Table:
    batch = np.ascontiguousarray(documents[start : start + _BATCH])
    count, tokens, dim = batch.shape
    flat = pa.FixedSizeListArray.from_arrays(pa.array(batch.reshape(-1)), dim)
    offsets = pa.array(np.arange(0, count * tokens + 1, tokens), pa.int32())
    column = pa.ListArray.from_arrays(offsets, flat)
    return pa.table({"id": pa.array(np.arange(start, start + count)), "vector": column})


def engine() -> Lance:
    return Lance()
