"""A plain model of an index: an ordered dict of decoded documents, searched by brute force in float64.

``python -m tests.storage.model --steps 100000 --seed 7`` walks at random over an index beside this model, see
``tests.storage.machine``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex import MetaIndex
from metaindex.codecs import Codec, bands
from metaindex.result import SearchResult
from metaindex.types import Levels
from tests.tolerances import score_tolerance

_COMPARISONS = {
    "$gt": lambda value, bound: value > bound,
    "$gte": lambda value, bound: value >= bound,
    "$lt": lambda value, bound: value < bound,
    "$lte": lambda value, bound: value <= bound,
}


class Document(NamedTuple):
    """Tokens float32 [t, d] as the codec keeps them, as an early copy does, their place in the order of addition, metadata."""

    tokens: NDArray[np.float32]
    early: NDArray[np.float32] | None
    place: int
    metadata: dict[str, Any] | None


@dataclass
class Model:
    """What an index should hold. ``codec``: the text of one or of several by token edge. ``whole``: all numbers are small
    integers, so scores are exact and ties are decided."""

    codec: str
    dim: int
    levels: Levels
    whole: bool = False
    early: str | None = None
    documents: dict[Any, Document] = field(default_factory=dict)
    next_id: int = 0
    next_place: int = 0
    names: set[str] = field(default_factory=set)
    gone: list[NDArray[np.float32]] = field(default_factory=list)  # the first token of each removed document
    _padded: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return self.whole and "int8" not in self.codec

    @property
    def ids(self) -> list[Any]:
        return list(self.documents)

    def copy(self) -> Model:
        return Model(
            self.codec,
            self.dim,
            self.levels,
            self.whole,
            self.early,
            dict(self.documents),
            self.next_id,
            self.next_place,
            set(self.names),
            list(self.gone),
        )

    @staticmethod
    def decoded(tokens: NDArray, kept: str) -> NDArray[np.float32]:
        """Document tokens [t, d] as ``kept`` keeps them."""
        return np.stack([_decoded(token, bands(kept).at(place)) for place, token in enumerate(tokens)])

    def add(self, ids: Sequence[Any], vectors: Sequence[NDArray], metadata: Sequence[dict[str, Any] | None] | None) -> None:
        for at, (id_, tokens) in enumerate(zip(ids, vectors, strict=True)):
            described = None if metadata is None else metadata[at]
            self.remove([id_])
            early = None if self.early is None else self.decoded(tokens, self.early)
            self.documents[id_] = Document(self.decoded(tokens, self.codec), early, self.next_place, described)
            self.names |= set(described or ())
            self.next_place += 1
            if isinstance(id_, int):
                self.next_id = max(self.next_id, id_ + 1)
            self.levels = self.levels.extended_to(len(tokens))
        self._padded = {}

    def remove(self, ids: Sequence[Any]) -> int:
        known = [id_ for id_ in dict.fromkeys(ids) if id_ in self.documents]
        for id_ in known:
            self.gone.append(self.documents.pop(id_).tokens[0])
        self._padded = {}
        return len(known)

    def update_metadata(self, ids: Sequence[Any], metadata: Sequence[dict[str, Any] | None]) -> None:
        for id_, described in zip(ids, metadata, strict=True):
            self.documents[id_] = self.documents[id_]._replace(metadata=described)
            self.names |= set(described or ())

    def forget_unused_names(self) -> None:
        self.names = {name for document in self.documents.values() for name in document.metadata or ()}

    def matching(self, condition: dict[str, Any]) -> list[Any]:
        """The ids of the documents that a filter by fields lets through."""
        return [id_ for id_, document in self.documents.items() if _matches(document.metadata or {}, condition)]

    def scores(self, queries: Sequence[NDArray], r_q: int, r_c: int, early: bool = False) -> NDArray[np.float64]:
        """MaxSim float64 [B, N] of every document at a budget, by the early copy or not."""
        kept = (self.early if early else self.codec) or ""
        if kept not in self._padded:
            lengths = np.array([len(document.tokens) for document in self.documents.values()], dtype=np.int64)
            tokens = np.zeros((len(lengths), int(lengths.max(initial=1)), self.dim))
            for row, document in zip(tokens, self.documents.values()):
                row[: len(document.tokens)] = document.early if early else document.tokens
            self._padded[kept] = tokens, lengths
        tokens, lengths = self._padded[kept]
        counted = np.arange(tokens.shape[1]) < np.minimum(lengths, r_c)[:, None]
        found = np.empty((len(queries), len(lengths)))
        for scores, query in zip(found, queries):
            similarities = np.empty((len(tokens), min(r_q, len(query)), tokens.shape[1]))
            for place in range(tokens.shape[1]):
                asked = _decoded(query, bands(kept).at(place))[:r_q].astype(np.float64)
                similarities[:, :, place] = np.einsum("qd,nd->nq", asked, tokens[:, place])
            scores[:] = np.where(counted[:, None], similarities, -np.inf).max(axis=2).sum(axis=1)
        return found


def _decoded(tokens: NDArray, kind: Codec) -> NDArray[np.float32]:
    return kind.decode(kind.encode(np.asarray(tokens, np.float32)))


def _matches(metadata: dict[str, Any], condition: dict[str, Any]) -> bool:
    for name, wanted in condition.items():
        if name == "$and":
            if not all(_matches(metadata, each) for each in wanted):
                return False
        elif name == "$or":
            if not any(_matches(metadata, each) for each in wanted):
                return False
        else:
            tests = wanted if isinstance(wanted, dict) else {"$eq": wanted}
            if not all(_holds(metadata, name, operator, bound) for operator, bound in tests.items()):
                return False
    return True


def _holds(metadata: dict[str, Any], name: str, operator: str, bound: Any) -> bool:
    value = metadata.get(name)
    if operator in ("$ne", "$nin"):
        return not _holds(metadata, name, {"$ne": "$eq", "$nin": "$in"}[operator], bound)
    if operator == "$in":
        return any(_holds(metadata, name, "$eq", each) for each in bound)
    if operator == "$eq":
        return value is None if bound is None else bool(value == bound)
    comparable = isinstance(value, (str, int, float)) and isinstance(value, str) == isinstance(bound, str)
    return comparable and bool(_COMPARISONS[operator](value, bound))


class Step(NamedTuple):
    """One stage of a search: a budget, how many documents go on, and whether it goes by the early copy."""

    r_q: int
    r_c: int
    keep: int
    early: bool = False


def assert_finds(
    found: SearchResult, model: Model, queries: Sequence[NDArray], steps: Sequence[Step], k: int, allowed: Sequence[Any]
) -> None:
    """``found`` is what ``steps`` give among the documents ``allowed``. Ranks may differ only within the tolerance."""
    ids = model.ids
    last = model.scores(queries, steps[-1].r_q, steps[-1].r_c)
    everything = [model.scores(queries, step.r_q, step.r_c, step.early) for step in steps]
    let_through = set(allowed)
    rows = np.array([at for at, id_ in enumerate(ids) if id_ in let_through], dtype=np.int64)
    place = {id_: at for at, id_ in enumerate(ids)}
    count = min(k, len(rows))
    tolerance = score_tolerance(last)
    assert found.scores.shape == found.ids.shape == (len(queries), k)
    for b in range(len(queries)):
        missing = found.ids[b, count:]
        assert all(id_ is None or id_ == -1 for id_ in missing.tolist())
        assert (found.scores[b, count:] == -np.inf).all()
        got = [place.get(id_, -1) for id_ in found.ids[b, :count].tolist()]
        assert -1 not in got, f"{found.ids[b]}: unknown to the model"
        scores = found.scores[b, :count]
        np.testing.assert_allclose(scores, last[b, got], **tolerance)
        assert len(set(got)) == count
        for at in range(1, count):
            assert (-scores[at - 1], got[at - 1]) < (-scores[at], got[at]), "out of order"
        if model.exact and not any(step.early for step in steps):
            kept = rows
            for step, truth in zip(steps, everything):
                kept = kept[np.lexsort((kept, -truth[b, kept]))][: step.keep]
            assert got == kept.tolist()
            np.testing.assert_array_equal(scores, last[b, got].astype(np.float32))
            continue
        sure = maybe = rows
        for step, truth in zip(steps, everything):
            sure, maybe = _kept(truth[b], sure, maybe, step.keep)
        assert set(sure.tolist()) <= set(got) <= set(maybe.tolist())


def _kept(
    scores: NDArray, sure: NDArray[np.int64], maybe: NDArray[np.int64], keep: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows a stage keeps for sure, and which it may keep, when scores are known up to a tolerance."""
    slack = 2 * score_tolerance(scores)["atol"] + 2e-5 * float(np.abs(scores[maybe]).max(initial=0))
    rivals = np.array([np.count_nonzero(scores[maybe] >= scores[row] - slack) - 1 for row in sure], dtype=np.int64)
    better = np.array([np.count_nonzero(scores[sure] > scores[row] + slack) for row in maybe], dtype=np.int64)
    return sure[rivals < keep], maybe[better < keep]


def assert_same(index: MetaIndex, model: Model) -> None:
    """The index holds just the documents of the model, with their metadata, in their order."""
    ids = model.ids
    assert len(index) == len(ids)
    assert list(index) == ids
    for found, (id_, expected) in zip(index.get(ids), model.documents.items(), strict=True):
        assert found.id == id_
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        assert found.metadata == expected.metadata, id_


def main() -> None:
    parser = argparse.ArgumentParser(description="Walk at random over an index beside a plain model.")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from tests.storage.machine import walk

    print(walk(arguments.steps, arguments.seed))


if __name__ == "__main__":
    main()
