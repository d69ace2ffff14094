"""The recipe of ColBERT on FAISS: an inverted file over all tokens proposes documents, which are then scored in full."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.engine import Setting

PACKAGE = "faiss-cpu"
_TRAINED = 200_000


class FaissTokens:
    def build(self, documents: NDArray, tuning: NDArray, folder: Path, threads: int) -> None:
        faiss.omp_set_num_threads(threads)
        count, self._tokens, dim = documents.shape
        self._documents = np.array(documents, np.float16)
        lists = 1 << int(np.log2(4 * (count * self._tokens) ** 0.5))
        self._index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        tokens = self._documents.reshape(-1, dim)
        chosen = np.random.default_rng(0).choice(len(tokens), min(_TRAINED, len(tokens)), replace=False)
        self._index.train(tokens[chosen].astype(np.float32))
        for start in range(0, len(tokens), _TRAINED):
            self._index.add(tokens[start : start + _TRAINED].astype(np.float32))

    def settings(self) -> dict[str, Setting]:
        return {
            f"nprobe={nprobe}, {near} tokens each, {rescored} rescored": {"nprobe": nprobe, "near": near, "rescored": rescored}
            for nprobe, near, rescored in ((4, 32, 50), (16, 128, 200), (64, 512, 1000))
        }

    def search(self, query: NDArray, k: int, setting: Setting) -> list[int]:
        parameters = faiss.SearchParametersIVF(nprobe=setting["nprobe"])
        scores, tokens = self._index.search(query, setting["near"], params=parameters)
        # A document's partial score: for each query token its best token among those found, nothing where none was.
        rows = np.repeat(np.arange(len(query)), tokens.shape[1])
        keep = tokens.ravel() >= 0
        rows, documents, found = rows[keep], tokens.ravel()[keep] // self._tokens, scores.ravel()[keep]
        candidates, places = np.unique(documents, return_inverse=True)
        best = np.zeros((len(query), len(candidates)), np.float32)
        np.maximum.at(best, (rows, places), found)
        most = min(setting["rescored"], len(candidates))
        chosen = candidates[np.argpartition(-best.sum(axis=0), most - 1)[:most]]
        exact = (self._documents[chosen].astype(np.float32) @ query.T).max(axis=1).sum(axis=1)
        ids: list[int] = chosen[np.argsort(-exact)[:k]].tolist()
        return ids


def engine() -> FaissTokens:
    return FaissTokens()
