"""The main job with an installed wheel and nothing optional: add, search at several budgets, save, open."""

import sys
import tempfile
from pathlib import Path

import numpy as np

import metaindex

assert not any(name in sys.modules for name in ("torch", "triton", "faiss", "matplotlib")), "an optional package was imported"
assert "site-packages" in metaindex.__file__, f"not the installed package: {metaindex.__file__}"

rng = np.random.default_rng(0)
vectors = rng.standard_normal((200, 16, 32), dtype=np.float32)
for codec in ("float32", "float16", "bfloat16", "int8"):
    index = metaindex.MetaIndex(codec=codec)
    index.add(vectors)
    for budget in (1, 4, 16):
        scores, ids = index.search(vectors[7, :8], k=5, budget=budget)
        reference = index.search(vectors[7, :8], k=5, budget=budget, scorer="reference")
        assert ids[0, 0] == 7, ids
        assert (ids == reference.ids).all()
        np.testing.assert_allclose(scores, reference.scores, rtol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "saved")
        with metaindex.MetaIndex.open(Path(folder) / "saved") as opened:
            np.testing.assert_array_equal(opened.search(vectors[7, :8]).scores, index.search(vectors[7, :8]).scores)
print("the installed wheel adds, searches, saves and opens")
