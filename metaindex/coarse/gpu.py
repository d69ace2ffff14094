"""FAISS on a GPU: whether a search can run there, and the copy of an index that it runs on.

The index that is filled, kept in step and written stays on the host; the device has a copy for searching. What FAISS can't do
there is done by a scan of level 0 with our own kernels, which keeps lists of any length and any mask, or, where a scan of level
0 would be no help, by FAISS on the host.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.coarse import kinds, library

MOST_HITS = 2048  # the longest list that FAISS's kernels for the GPU select
_NAMES = ("nprobe", "efSearch")


class Choice(NamedTuple):
    """Where a search runs: FAISS on the host or on the GPU, or a scan of level 0; and why."""

    where: Literal["host", "gpu", "scan"]
    why: str


def choose(device: str, gpus: int, count: int, *, leaves_out: bool, names: frozenset[str], scans: bool) -> Choice:
    """Where to look for ``count`` candidates in an index that works on ``device``.

    ``gpus``: how many the installed FAISS can use. ``leaves_out``: whether some documents of the index must not be found.
    ``names``: of search parameters that are asked for. ``scans``: whether a scan of level 0 finds what the index is to find.
    """
    if device.partition(":")[0] != "cuda":
        return Choice("host", "on the CPU")
    if not gpus:
        why = "the installed FAISS has no GPU"
    elif count > MOST_HITS:
        why = f"FAISS keeps at most {MOST_HITS:,} on a GPU"
    elif leaves_out:
        why = "FAISS can't leave documents out on a GPU"
    elif unknown := sorted(names.difference(_NAMES)):
        why = f"FAISS has no {unknown[0]} on a GPU"
    else:
        return Choice("gpu", f"on {device}")
    return Choice("scan" if scans else "host", why)


class GpuCopy:
    """A copy of a FAISS index on a GPU: of Flat and IVF the same index there, of a graph a CAGRA over its vectors.

    One search at a time: FAISS's working memory on a device serves one.
    """

    def __init__(self, index: Any, device: str) -> None:
        faiss = library.load()
        number = int(device.partition(":")[2] or 0)
        self._lock = threading.Lock()
        self._resources = faiss.StandardGpuResources()
        self._graph = kinds.is_graph(index)
        if self._graph:
            self.index = _cagra(faiss, self._resources, number, index)
        else:
            self.index = faiss.index_cpu_to_gpu(self._resources, number, index)

    def search(self, queries: NDArray[np.float32], count: int, values: Mapping[str, int]) -> NDArray[np.int64]:
        """Positions int64 [B, count], best first, -1 where there are fewer."""
        faiss = library.load()
        parameters = None
        if self._graph:
            parameters = faiss.SearchParametersCagra()
            parameters.itopk_size = max(count, values.get("efSearch", 0))
        elif "nprobe" in values:
            parameters = faiss.SearchParametersIVF(nprobe=values["nprobe"])
        with self._lock:
            _, positions = self.index.search(queries, count, params=parameters)
        return np.asarray(positions)


def _cagra(faiss: Any, resources: Any, number: int, index: Any) -> Any:
    """A CAGRA, whose graph is about as dense as that of ``index``. Raises RuntimeError where this build of FAISS has none."""
    if not hasattr(faiss, "GpuIndexCagra"):
        raise RuntimeError("the installed FAISS has no CAGRA")
    config = faiss.GpuIndexCagraConfig()
    config.device = number
    config.graph_degree = 2 * index.hnsw.nb_neighbors(1)
    config.intermediate_graph_degree = 2 * config.graph_degree
    made = faiss.GpuIndexCagra(resources, index.d, faiss.METRIC_INNER_PRODUCT, config)
    made.train(index.reconstruct_n(0, index.ntotal))
    return made


def count() -> int:
    """How many GPUs the installed FAISS can use; a build without them says 0 or nothing."""
    faiss = library.load()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
