"""Qdrant Edge as its manual advises for multi-vectors: a graph over single vectors proposes, MaxSim ranks; or a full scan."""

from __future__ import annotations

from pathlib import Path

import qdrant_edge as qdrant
from numpy.typing import NDArray

from benchmarks.engines.engine import Setting

PACKAGE = "qdrant-edge-py"
_BATCH = 500
_NO_GRAPH = qdrant.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)


class Qdrant:
    """Each point holds its first token as a vector of its own, and all tokens as a multi-vector."""

    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        dim, dot = documents.shape[2], qdrant.Distance.Dot
        maxsim = qdrant.MultiVectorConfig(qdrant.MultiVectorComparator.MaxSim)
        vectors = {
            "first": qdrant.EdgeVectorParams(size=dim, distance=dot),
            "all": qdrant.EdgeVectorParams(size=dim, distance=dot, multivector_config=maxsim, hnsw_config=_NO_GRAPH),
        }
        self._shard = qdrant.EdgeShard.create(str(folder), qdrant.EdgeConfig(vectors=vectors, max_search_threads=threads))
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            points = [qdrant.Point(start + row, {"first": d[0].tolist(), "all": d.tolist()}) for row, d in enumerate(batch)]
            self._shard.update(qdrant.UpdateOperation.upsert_points(points))
        self._shard.flush()
        self._shard.optimize()

    def settings(self) -> dict[str, Setting]:
        return {**{f"prefetch {limit}": {"limit": limit} for limit in (100, 1000, 4000)}, "exact": {}}

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        prefetches = []
        if limit := setting.get("limit"):
            nearest = qdrant.Query.Nearest(query[0].tolist(), using="first")
            params = qdrant.SearchParams(hnsw_ef=limit)
            prefetches.append(qdrant.Prefetch(limit=limit, query=nearest, params=params))
        maxsim = qdrant.Query.Nearest(query.tolist(), using="all")
        exact = qdrant.SearchParams(exact=True)
        found = self._shard.query(qdrant.QueryRequest(limit=k, query=maxsim, prefetches=prefetches, params=exact))
        return [point.id for point in found]


def engine() -> Qdrant:
    return Qdrant()
