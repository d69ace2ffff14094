"""Makes the golden indexes anew: ``python -m tests.storage.golden.make``. Only a new format version may need it.
With names of new kinds it makes these only.

Each is an index folder with ``expected.json`` beside it: ids, tokens, metadata and the results of a search.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np

from metaindex import MetaIndex
from metaindex.coarse import upkeep

HERE = Path(__file__).parent
DIM = 4


def vectors(rng: np.random.Generator, *lengths: int) -> list[np.ndarray]:
    return [rng.standard_normal((length, DIM)).astype(np.float32) for length in lengths]


def plain(codec: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        rng = np.random.default_rng(1)
        with MetaIndex(path=path, codec=codec) as index:
            index.add(vectors(rng, 3, 1, 4, 2), metadata=[{"lang": "en", "year": 2020}, None, {"lang": "dé"}, {}])

    return make


def text_ids(path: Path) -> None:
    with MetaIndex(path=path, codec="int8") as index:
        metadata = [{"a": [1, {"b": None}]}] * 3
        index.add(vectors(np.random.default_rng(2), 2, 3, 1), ids=["", "ünï", "x" * 100], metadata=metadata)


def several_segments(path: Path) -> None:
    rng = np.random.default_rng(3)
    with MetaIndex(path=path) as index:
        for lengths in ((1, 4, 2), (3,), (2, 2)):
            index.add(vectors(rng, *lengths))
        index.remove([1, 3])
        index.upsert(vectors(rng, 4), ids=[0], metadata=[{"version": 2}])


def fixed_shape(path: Path) -> None:
    with MetaIndex(DIM, 4, 2, levels=(1, 3, 4), path=path, nested=True, normalize=True) as index:
        index.add(np.random.default_rng(4).standard_normal((3, 4, DIM)), ids=[2**63 - 1, 5, 7])


def declared_fields(path: Path) -> None:
    """Two fields with indexes; metadata in versions that ended, that stand, and that a removed document left."""
    rng = np.random.default_rng(5)
    with MetaIndex(path=path, fields=["lang", "year"]) as index:
        index.add(vectors(rng, 2, 3, 1, 2), metadata=[{"lang": "en", "year": 2020}, {"lang": ["en", "dé"]}, {"more": 1}, None])
        index.update_metadata([0, 3], [{"lang": "fr", "year": 2021.5}, {"year": None}])
        index.update_metadata([0, 2], [{"lang": "nl", "new": {"a": True}}, None])
        index.update_metadata([2], [{"year": 1999}])
        index.remove([1])


def codecs_by_edge(path: Path) -> None:
    rng = np.random.default_rng(6)
    with MetaIndex(path=path, codec={2: "int8", 4: "float16", None: "float32"}) as index:
        index.add(vectors(rng, 3, 1, 7, 2, 4))


def early_copy(path: Path) -> None:
    rng = np.random.default_rng(7)
    with MetaIndex(path=path, early="int8") as index:
        index.add(vectors(rng, 3, 1, 4))
        index.add(vectors(rng, 2, 2))
        index.remove([1])
        index.set_default("(1,1):int8>4 (*,*)")


def coarse_stage(path: Path) -> None:
    """With its file, and a document that came after it."""
    rng = np.random.default_rng(8)
    with patch.object(upkeep, "FEW", 2), MetaIndex(path=path, coarse="Flat", nested=True) as index:
        index.add(vectors(rng, 3, 1, 4))
    with MetaIndex.open(path, "r+") as index:
        index.add(vectors(rng, 2))


def empty(path: Path) -> None:
    MetaIndex(path=path).close()


GOLDEN: dict[str, Callable[[Path], None]] = {
    **{codec: plain(codec) for codec in ("float32", "float16", "bfloat16", "int8")},
    "text-ids": text_ids,
    "several-segments": several_segments,
    "fixed-shape": fixed_shape,
    "declared-fields": declared_fields,
    "codecs-by-edge": codecs_by_edge,
    "early-copy": early_copy,
    "coarse-stage": coarse_stage,
    "empty": empty,
}


def expected(index: MetaIndex) -> dict:
    documents = index.get(list(index)) if len(index) else []
    listed = [{"id": one.id, "tokens": one.tokens.tolist(), "metadata": one.metadata} for one in documents]
    found: dict = {"documents": listed, "searches": []}
    if len(index):
        query = np.random.default_rng(9).standard_normal((2, DIM)).astype(np.float32)
        for budget in (None, (1, 1), (2, 2)):
            scores, ids = index.search(query[None], 3, budget=budget, scorer="reference")
            asked = {"query": query.tolist(), "budget": budget}
            found["searches"].append({**asked, "scores": scores.tolist(), "ids": ids.tolist()})
    return found


def shrink(path: Path) -> None:
    """Smaller pages: a few KB instead of thirty."""
    connection = sqlite3.connect(path / "catalog.sqlite")
    connection.execute("PRAGMA page_size = 512")
    connection.execute("VACUUM")
    connection.close()


def make(name: str, where: Path) -> None:
    path = where / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    GOLDEN[name](path / "index")
    shrink(path / "index")
    with MetaIndex.open(path / "index") as index:
        (path / "expected.json").write_text(json.dumps(expected(index), ensure_ascii=False).replace("Infinity", "1e999"))
    for folder in ("tmp", "segments"):  # git keeps no empty folder
        shutil.rmtree(path / "index" / folder) if not any((path / "index" / folder).iterdir()) else None
    (path / "index" / "lock").write_text("")


if __name__ == "__main__":
    for each in sys.argv[1:] or GOLDEN:
        make(each, HERE)
