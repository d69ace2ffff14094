"""fast-plaid: centroids and 4-bit residuals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fast_plaid import search as plaid
from numpy.typing import NDArray

from benchmarks.engines.engine import Setting

PACKAGE = "fast-plaid"


class Plaid:
    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._index = plaid.FastPlaid(index=str(folder), device="cpu")
        self._index.create(documents_embeddings=[torch.from_numpy(np.array(document)) for document in documents])

    def settings(self) -> dict[str, Setting]:
        return {
            f"n_ivf_probe={probes}, n_full_scores={full}": {"n_ivf_probe": probes, "n_full_scores": full}
            for probes, full in ((4, 512), (8, 4096), (32, 8192))
        }

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        found = self._index.search(queries_embeddings=torch.from_numpy(query)[None], top_k=k, show_progress=False, **setting)
        return [int(id_) for id_, _ in found[0]]


def engine() -> Plaid:
    return Plaid()
