"""Where a coarse stage runs: what can be decided without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metaindex.coarse import gpu, kinds

ASKED: dict[str, Any] = {"leaves_out": False, "names": frozenset(), "scans": True}


@pytest.mark.parametrize(
    ("device", "gpus", "count", "more", "where", "why"),
    [
        ("cpu", 1, 100, {}, "host", "on the CPU"),
        ("cuda", 1, 100, {}, "gpu", "on cuda"),
        ("cuda:1", 2, gpu.MOST_HITS, {"names": frozenset({"nprobe"})}, "gpu", "on cuda:1"),
        ("cuda", 0, 100, {}, "scan", "the installed FAISS has no GPU"),
        ("cuda", 0, 100, {"scans": False}, "host", "the installed FAISS has no GPU"),
        ("cuda", 1, gpu.MOST_HITS + 1, {}, "scan", "at most 2,048"),
        ("cuda", 1, 100, {"leaves_out": True}, "scan", "can't leave documents out"),
        ("cuda", 1, 100, {"names": frozenset({"nprobe", "k_factor"})}, "scan", "no k_factor on a GPU"),
        ("cuda", 1, 100, {"names": frozenset({"k_factor"}), "scans": False}, "host", "no k_factor on a GPU"),
    ],
)
def test_where_a_search_runs_and_why(device, gpus, count, more, where, why):
    chosen = gpu.choose(device, gpus, count, **{**ASKED, **more})
    assert chosen.where == where
    assert why in chosen.why


class FakeFaiss:
    """A FAISS with a GPU, whose indexes note what they are asked for."""

    METRIC_INNER_PRODUCT = 0

    class StandardGpuResources:
        pass

    class SearchParametersIVF:
        def __init__(self, nprobe: int) -> None:
            self.nprobe = nprobe

    class SearchParametersCagra:
        itopk_size = 0

    class GpuIndexCagraConfig:
        device = graph_degree = intermediate_graph_degree = 0

    class Index:
        def search(self, queries, count, params=None):
            self.asked = params
            return None, np.zeros((len(queries), count), np.int64)

    class GpuIndexCagra(Index):
        def __init__(self, resources, d, metric, config) -> None:
            self.config = config

        def train(self, vectors) -> None:
            self.vectors = vectors

    def index_cpu_to_gpu(self, resources, number, index):
        made = self.Index()
        made.number, made.host = number, index
        return made


@pytest.fixture
def fake(monkeypatch):
    found = FakeFaiss()
    monkeypatch.setattr(gpu.library, "load", lambda: found)
    return found


def test_lists_are_searched_with_their_parameter(fake, monkeypatch):
    monkeypatch.setattr(kinds, "is_graph", lambda index: False)
    copy = gpu.GpuCopy("an index", "cuda:1")
    assert (copy.index.number, copy.index.host) == (1, "an index")
    assert copy.search(np.zeros((2, 4), np.float32), 7, {"nprobe": 3}).shape == (2, 7)
    assert copy.index.asked.nprobe == 3
    copy.search(np.zeros((2, 4), np.float32), 7, {})
    assert copy.index.asked is None


def test_a_graph_becomes_a_cagra_of_its_vectors(fake, monkeypatch):
    monkeypatch.setattr(kinds, "is_graph", lambda index: True)

    class Graph:
        d, ntotal = 4, 9

        class hnsw:  # noqa: N801
            @staticmethod
            def nb_neighbors(layer):
                return 16

        @staticmethod
        def reconstruct_n(start, count):
            return np.zeros((count, 4), np.float32)

    copy = gpu.GpuCopy(Graph(), "cuda")
    assert copy.index.vectors.shape == (9, 4)
    assert (copy.index.config.graph_degree, copy.index.config.intermediate_graph_degree) == (32, 64)
    copy.search(np.zeros((1, 4), np.float32), 20, {"efSearch": 64})
    assert copy.index.asked.itopk_size == 64
    copy.search(np.zeros((1, 4), np.float32), 90, {"efSearch": 64})
    assert copy.index.asked.itopk_size == 90
    monkeypatch.delattr(FakeFaiss, "GpuIndexCagra")
    with pytest.raises(RuntimeError, match="no CAGRA"):
        gpu.GpuCopy(Graph(), "cuda")


def test_a_build_without_gpus_counts_none(fake):
    assert gpu.count() == 0
    fake.get_num_gpus = lambda: 2
    assert gpu.count() == 2
