"""The state machine: every operation of an index at random, each beside the same on a plain model."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray

from metaindex import MetaIndex
from metaindex.codecs import bands
from metaindex.errors import (
    ClosedError,
    DuplicateIdError,
    FilterError,
    IndexLockedError,
    MetaIndexError,
    NonFiniteError,
    ReadOnlyError,
    ShapeError,
    UnknownIdError,
)
from metaindex.storage.catalog import Catalog
from metaindex.storage.files import Files
from metaindex.types import Levels
from tests.storage.model import Model, Step, assert_finds, assert_same
from tests.storage.thresholds import lowered

STEPS_IN_A_WALK = 50
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a sync costs nothing there
_SEEDS = st.integers(0, 2**16 - 1)
_R = 3
_MOST_TOKENS = 8
_MARK = "unmistakable-"
_FIELDS = {"lang", "year", "score", "mark", "nested"}
_LANGUAGES = ("de", "en", "fr")
_KILLED = 9

hits: Counter[str] = Counter()


class _StoppedError(Exception):
    """What an iterator of vectors raises to end an addition half way."""


class IndexMachine(RuleBasedStateMachine):
    """One index, on disk or in memory, its readers and its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="metaindex-", dir=_MEMORY))
        self.path: Path | None = None
        self.readers: list[tuple[MetaIndex, Model]] = []
        self.copies: list[tuple[Path, Model]] = []
        self.made = 0
        self.crashes: Counter[str] = Counter()

    @initialize(
        on_disk=st.sampled_from([True, True, True, False]),
        codec=st.sampled_from(["float32", "float16", "bfloat16", "int8", "{}:int8,float16", "{}:float16,float32"]),
        early=st.booleans(),
        dim=st.integers(3, 5),
        text=st.booleans(),
        whole=st.booleans(),
        told=st.booleans(),
        shape=st.sampled_from([(None, None), (_MOST_TOKENS, None), (None, (2, 5)), (_MOST_TOKENS, (1, 3, 8))]),
        fields=st.sampled_from([(), ("year",), ("lang", "year")]),
        memory_limit=st.sampled_from([None, 1 << 10, 1 << 20]),
    )
    def make(
        self,
        on_disk: bool,
        codec: str,
        early: bool,
        dim: int,
        text: bool,
        whole: bool,
        told: bool,
        shape: tuple[int | None, tuple[int, ...] | None],
        fields: tuple[str, ...],
        memory_limit: int | None,
    ) -> None:
        self._hit("make")
        # In memory a limit is what all vectors may take, removed ones counted in, and would only be met.
        self.memory_limit = memory_limit if on_disk or memory_limit is None else 1 << 30
        doc_tokens, edges = shape
        levels = Levels(edges or (1,))
        if "{}" in codec:
            edge = levels.edges[0] if edges else 2
            codec, levels = codec.format(edge), levels.extended_to(edge)
        copy = "int8" if early and "int8" not in codec else None
        self.model = Model(codec, dim, levels if doc_tokens is None else levels.extended_to(doc_tokens), whole, copy)
        self.text, self.limit, self.query_tokens = text, doc_tokens, _R if told else None
        self.path = self._fresh() if on_disk else None
        self.index = MetaIndex(
            dim if told else None,
            doc_tokens,
            self.query_tokens,
            levels=edges,
            codec=codec,
            early=copy,
            path=self.path,
            num_threads=1,
            fields=fields,
            memory_limit=self.memory_limit,
        )

    def teardown(self) -> None:
        for index, _ in self.readers:
            index.close()
        if hasattr(self, "index"):
            self.index.close()
        shutil.rmtree(self.root)

    @invariant()
    def counts_its_documents(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == len(self.model.documents)

    # material

    def _hit(self, name: str) -> None:
        hits[name] += 1

    def _fresh(self) -> Path:
        self.made += 1
        return self.root / f"index-{self.made}"

    def _vectors(self, rng: np.random.Generator, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
        values = [rng.standard_normal((t, self.model.dim)) for t in lengths]
        return [(np.round(2 * v) if self.model.whole else v).astype(np.float32) for v in values]

    def _documents(self, rng: np.random.Generator, count: int) -> list[NDArray[np.float32]]:
        return self._vectors(rng, rng.integers(1, _MOST_TOKENS + 1 if rng.random() < 0.7 else 3, count).tolist())

    def _queries(self, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        return self._vectors(rng, rng.integers(1, _R + 1, int(rng.integers(1, 4))).tolist())

    def _metadata(self, rng: np.random.Generator) -> dict[str, Any] | None:
        if rng.random() < 0.2:
            return None
        self.made += 1
        described: dict[str, Any] = {"mark": f"{_MARK}{self.made}-{rng.integers(10**6)}."}
        if rng.random() < 0.8:
            described["lang"] = _LANGUAGES[rng.integers(3)]
        if rng.random() < 0.8:
            described["year"] = int(rng.integers(2018, 2024))
        if rng.random() < 0.3:
            described["score"] = round(float(rng.random()), 2)
        if rng.random() < 0.2:
            described["nested"] = {"a": [1, None, "ä"]}
        return described

    def _new_ids(self, rng: np.random.Generator, count: int) -> list[Any]:
        """Ids that don't stand in the index; some did once."""
        taken, chosen = self.model.documents, []
        while len(chosen) < count:
            number = int(rng.integers(0, 200))
            id_ = f"dokument-ü-{number}" if self.text else number
            if id_ not in taken and id_ not in chosen:
                chosen.append(id_)
        return chosen

    def _some_ids(self, rng: np.random.Generator, most: int) -> list[Any]:
        """Ids of documents that stand."""
        ids = self.model.ids
        return [ids[at] for at in rng.permutation(len(ids))[: int(rng.integers(0, most + 1))]]

    def _condition(self, rng: np.random.Generator, names: Sequence[str], depth: int = 0) -> dict[str, Any]:
        name = names[rng.integers(len(names))]
        values: dict[str, Callable[[], Any]] = {
            "lang": lambda: _LANGUAGES[rng.integers(3)],
            "year": lambda: int(rng.integers(2017, 2025)),
            "score": lambda: round(float(rng.random()), 2),
            "mark": lambda: _MARK,
            "nested": lambda: 1,
        }
        value = values[name] if rng.random() < 0.9 else values["lang"]
        if rng.random() < 0.1:
            return {name: [None, {"$eq": None}, {"$ne": None}, {"$nin": [None, value()]}][rng.integers(4)]}
        operator = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$and", "$or", "plain")[rng.integers(11)]
        if operator in ("$and", "$or"):
            if depth == 2:
                return {name: value()}
            return {operator: [self._condition(rng, names, depth + 1) for _ in range(int(rng.integers(1, 4)))]}
        if operator == "plain":
            return {name: value()}
        if operator in ("$in", "$nin"):
            return {name: {operator: [value() for _ in range(int(rng.integers(0, 4)))]}}
        if rng.random() < 0.3:
            return {name: {operator: value(), "$lt": value()}}
        return {name: {operator: value()}}

    def _usable_names(self) -> list[str]:
        return sorted(self.model.names & _FIELDS)

    # writes

    def _addition(self, seed: int, count: int, default_ids: bool) -> tuple[list[NDArray], list[Any], list[Any] | None, bool]:
        rng = np.random.default_rng(seed)
        default_ids = default_ids and not self.text
        ids = [self.model.next_id + at for at in range(count)] if default_ids else self._new_ids(rng, count)
        metadata = [self._metadata(rng) for _ in range(count)] if rng.random() < 0.7 else None
        return self._documents(rng, count), ids, metadata, default_ids

    @rule(seed=_SEEDS, count=st.integers(0, 5), default_ids=st.booleans(), form=st.sampled_from(["list", "array", "iterator"]))
    def add(self, seed: int, count: int, default_ids: bool, form: str) -> None:
        self._hit("add")
        vectors, ids, metadata, default_ids = self._addition(seed, count, default_ids)
        given: Any = vectors
        if form == "array" and count:
            vectors = [each[: min(map(len, vectors))] for each in vectors]
            given = np.stack(vectors)
        elif form == "iterator":
            given = (vectors[at : at + 2] for at in range(0, count, 2))
        returned = self.index.add(given, None if default_ids else ids, metadata)
        assert returned.tolist() == ids
        self.model.add(ids, vectors, metadata)

    @rule(seed=_SEEDS, new=st.integers(0, 2))
    def upsert(self, seed: int, new: int) -> None:
        self._hit("upsert")
        rng = np.random.default_rng(seed)
        ids = self._some_ids(rng, 3) + self._new_ids(rng, new)
        vectors, metadata = self._documents(rng, len(ids)), [self._metadata(rng) for _ in ids]
        assert self.index.upsert(vectors, ids, metadata).tolist() == ids
        self.model.add(ids, vectors, metadata)

    @rule(seed=_SEEDS, unknown=st.booleans())
    def remove(self, seed: int, unknown: bool) -> None:
        self._hit("remove")
        rng = np.random.default_rng(seed)
        ids = self._some_ids(rng, 5)
        if not unknown:
            assert self.index.remove(ids * 2) == self.model.remove(ids)
            return
        ids += self._new_ids(rng, 1)
        with pytest.raises(UnknownIdError):
            self.index.remove(ids)
        assert len(self.index) == len(self.model.documents)
        assert self.index.remove(ids, missing="ignore") == self.model.remove(ids)

    @rule(seed=_SEEDS)
    def remove_by_filter(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        if not (names := self._usable_names()):
            return
        self._hit("remove by filter")
        condition = {"$and": [self._condition(rng, names), {"mark": {"$lt": f"{_MARK}{self.made * rng.random():.0f}"}}]}
        if "mark" not in names:
            condition = self._condition(rng, names)
        assert self.index.remove(filter=condition) == self.model.remove(self.model.matching(condition)), condition

    @rule(seed=_SEEDS)
    def update_metadata(self, seed: int) -> None:
        self._hit("update metadata")
        rng = np.random.default_rng(seed)
        ids = self._some_ids(rng, 4)
        metadata = [self._metadata(rng) for _ in ids]
        self.index.update_metadata(ids, metadata)
        self.model.update_metadata(ids, metadata)
        assert [each.metadata for each in self.index.get(ids)] == metadata

    @rule(seed=_SEEDS, what=st.integers(0, 10))
    def fail(self, seed: int, what: int) -> None:
        """A call that can't be served changes nothing."""
        self._hit(f"fail {what}")
        rng = np.random.default_rng(seed)
        vectors, ids = self._documents(rng, 2), self._new_ids(rng, 3)
        standing = self._some_ids(rng, 1)
        known_dim = self.index.schema.dim is not None
        if what == 0:
            vectors[1][-1, -1] = (np.nan, np.inf)[rng.integers(2)]
            with pytest.raises(NonFiniteError):
                self.index.add(iter([vectors[:1], vectors[1:]]), ids[:2])
        elif what == 1 and standing:
            with pytest.raises(DuplicateIdError):
                self.index.add(iter([vectors[:1], vectors[1:]]), [ids[0], standing[0]])
        elif what == 2:
            with pytest.raises(DuplicateIdError):
                self.index.upsert(vectors, [*standing, ids[0]][:1] * 2)
        elif what == 3:
            with pytest.raises(ShapeError):
                self.index.upsert(vectors, [*standing, *ids][:3])
        elif what == 4 and known_dim:
            with pytest.raises(ShapeError):
                self.index.add([each[:, :2] for each in vectors], ids[:2])
        elif what == 5 and self.limit:
            with pytest.raises(ShapeError):
                self.index.add(iter([vectors, np.zeros((1, self.limit + 1, self.model.dim))]), ids)
        elif what == 6 and self.index.schema.id_kind:
            with pytest.raises(TypeError):
                self.index.add(vectors, [1, 2] if self.text else ["a", "b"])
        elif what == 7:
            with pytest.raises(UnknownIdError):
                self.index.update_metadata([*standing, ids[0]], [{"lang": "zz"}] * (len(standing) + 1))
        elif what == 8:
            with pytest.raises(_StoppedError):
                self.index.upsert(_stopping([vectors], _StoppedError), [*standing, *ids][:3])
        elif what == 9:
            if self.model.names:
                with pytest.raises(FilterError):
                    self.index.remove(filter={"never_used": 1})
            else:
                assert self.index.remove(filter={"never_used": 1}) == 0
            with pytest.raises(FilterError):
                self.index.search(self._queries(rng), filter={"year": {"$near": 2020}})
        elif what == 10:
            with pytest.raises(ValueError, match="metadata"):
                self.index.add(vectors, ids[:2], [{"lang": "en"}, {"lang": float("nan")}])
        assert_same(self.index, self.model)

    # searches

    def _search(
        self, index: MetaIndex, model: Model, rng: np.random.Generator, kind: str, filter: Any = None, allowed: Any = None
    ) -> None:
        queries, k = self._queries(rng), int(rng.integers(1, 9))
        most_q, most_c = self.query_tokens or max(map(len, queries)), model.levels.tokens
        edges = model.levels.edges
        scorer = "reference" if rng.random() < 0.1 else "auto"
        found: Any
        if kind == "plan":
            sides = [sorted(rng.integers(1, most + 1, 3).tolist()) for most in (most_q, most_c)]
            keeps = sorted(rng.integers(k, k + 8, 2).tolist(), reverse=True)
            early = [*(model.early is not None and rng.random() < 0.6 for _ in keeps), False]
            steps = [Step(*each) for each in zip(*sides, [*keeps, k], early)][int(rng.integers(2)) :]
            text = " ".join(f"({r_q},{r_c}){':int8' * copy}>{keep}" for r_q, r_c, keep, copy in steps[:-1])
            plan = f"{text} ({steps[-1].r_q},{steps[-1].r_c})"
            assert str(index.plan(k, plan=plan, filter=filter, queries=len(queries), query_tokens=max(map(len, queries))))
            found = index.search(queries, k, plan=plan, filter=filter, scorer=scorer)
        else:
            budget: Any = (int(rng.integers(1, most_q + 1)), int(edges[rng.integers(len(edges))]))
            if rng.random() < 0.3:
                budget = (budget[0], int(rng.integers(1, most_c + 1)))
            full = Step(*budget, k)
            if rng.random() < 0.2:
                budget, full = None, Step(most_q, most_c, k)
            elif rng.random() < 0.2:
                full = Step(min(full.r_c, most_q), full.r_c, k)
                budget = full.r_c
            steps, candidates = [full], None
            if kind == "candidates":
                candidates = int(rng.integers(k, k + 8))
                steps = [Step(full.r_q, min(edges[0], full.r_c), candidates), full]
            found = index.search(queries, k, budget=budget, candidates=candidates, filter=filter, scorer=scorer)
            assert found.exact or candidates is not None
        assert_finds(found, model, queries, steps, k, model.ids if allowed is None else allowed)

    @rule(seed=_SEEDS, kind=st.sampled_from(["budget", "candidates", "plan"]))
    def search(self, seed: int, kind: str) -> None:
        self._hit(f"search by {kind}")
        self._search(self.index, self.model, np.random.default_rng(seed), kind)

    @rule(seed=_SEEDS, kind=st.sampled_from(["budget", "candidates", "plan"]), by=st.sampled_from(["ids", "mask", "fields"]))
    def search_filtered(self, seed: int, kind: str, by: str) -> None:
        rng = np.random.default_rng(seed)
        ids = self.model.ids
        if by == "ids":
            allowed = self._some_ids(rng, len(ids))
            filter: Any = [*allowed, *self._new_ids(rng, 1)]
        elif by == "mask":
            filter = rng.random(len(ids)) < rng.random()
            allowed = [id_ for id_, let in zip(ids, filter) if let]
        elif names := self._usable_names():
            filter = self._condition(rng, names)
            allowed = self.model.matching(filter)
        else:
            return
        self._hit(f"search among {by}")
        self._search(self.index, self.model, rng, kind, filter, allowed)

    @rule(seed=_SEEDS)
    def look(self, seed: int) -> None:
        """get, contains, iter, score, rerank and explain."""
        self._hit("look")
        rng = np.random.default_rng(seed)
        ids, other = self._some_ids(rng, 4), self._new_ids(rng, 1)[0]
        for found in self.index.get([*ids, other], missing="ignore"):
            np.testing.assert_array_equal(found.tokens, self.model.documents[found.id].tokens)
            assert found.metadata == self.model.documents[found.id].metadata
        with pytest.raises(UnknownIdError):
            self.index.get([*ids, other])
        assert all(id_ in self.index for id_ in ids)
        assert other not in self.index
        assert list(self.index) == self.model.ids
        assert repr(self.index)
        assert self.index.memory()["catalog"] > 0
        if not ids:
            return
        queries = self._queries(rng)
        r_q = self.query_tokens or max(map(len, queries))
        truth = self.model.scores(queries, r_q, self.model.levels.tokens)[:, [self.model.ids.index(id_) for id_ in ids]]
        np.testing.assert_allclose(self.index.score(queries, ids), truth, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(truth).max()))
        ranked = self.index.rerank(queries, ids)
        np.testing.assert_allclose(ranked.scores, -np.sort(-truth), rtol=2e-5, atol=2e-5 * max(1.0, np.abs(truth).max()))
        explained = self.index.explain(queries[0], ids[0])
        assert abs(explained.score - truth[0, 0]) <= 2e-5 * max(1.0, np.abs(truth).max())
        assert int(explained.tokens.max()) < len(self.model.documents[ids[0]].tokens)

    # lifetime

    def _opened(self, path: Path, mode: str, **more: Any) -> MetaIndex:
        return MetaIndex.open(path, mode, num_threads=1, **{"memory_limit": self.memory_limit, **more})

    @precondition(lambda self: self.path is not None)
    @rule(verify=st.booleans(), memory_limit=st.sampled_from([None, 1 << 10, 1 << 20]))
    def reopen(self, verify: bool, memory_limit: int | None) -> None:
        self._hit("reopen")
        self.memory_limit = memory_limit
        self.index.close()
        with pytest.raises(ClosedError):
            self.index.search(np.zeros((1, self.model.dim)))
        assert self.path is not None
        with self._opened(self.path, "r", verify=verify) as reader:
            with pytest.raises(ReadOnlyError):
                reader.remove([])
            assert_same(reader, self.model)
        self.index = self._opened(self.path, "r+", verify=verify)
        with pytest.raises(IndexLockedError):
            self._opened(self.path, "r+")

    @precondition(lambda self: self.path is not None and len(self.readers) < 2)
    @rule()
    def open_reader(self) -> None:
        self._hit("open reader")
        assert self.path is not None
        self.readers.append((self._opened(self.path, "r"), self.model.copy()))

    @precondition(lambda self: self.readers)
    @rule(seed=_SEEDS, refresh=st.booleans())
    def use_reader(self, seed: int, refresh: bool) -> None:
        """A reader shows the state of its last refresh, whatever was written since."""
        self._hit("refresh" if refresh else "use reader")
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(self.readers)))
        reader, model = self.readers[at]
        if refresh:
            reader.refresh()
            model = self.model.copy()
            self.readers[at] = reader, model
        assert_same(reader, model)
        condition = self._condition(rng, names) if (names := sorted(model.names & _FIELDS)) else None
        self._search(reader, model, rng, "budget")
        if condition is not None:
            self._search(reader, model, rng, "candidates", condition, model.matching(condition))

    @precondition(lambda self: self.readers)
    @rule()
    def close_reader(self) -> None:
        self._hit("close reader")
        reader, model = self.readers.pop(0)
        assert_same(reader, model)
        reader.close()

    @rule()
    def snapshot(self) -> None:
        self._hit("snapshot")
        self._keep_copy(self.index.snapshot)

    @rule(overwrite=st.booleans())
    def save(self, overwrite: bool) -> None:
        self._hit("save")
        if overwrite and self.copies:
            path, _ = self.copies.pop()
            with pytest.raises(FileExistsError):
                self.index.save(path)
            self.index.save(path, overwrite=True)
            self.copies.append((path, self.model.copy()))
        else:
            self._keep_copy(self.index.save)

    def _keep_copy(self, copy: Callable[[Path], None]) -> None:
        path = self._fresh()
        copy(path)
        with pytest.raises(FileExistsError):
            copy(path)
        self.copies.append((path, self.model.copy()))
        if len(self.copies) > 3:
            shutil.rmtree(self.copies.pop(0)[0])

    @precondition(lambda self: self.copies)
    @rule(seed=_SEEDS, go_on_there=st.booleans())
    def open_copy(self, seed: int, go_on_there: bool) -> None:
        """A copy stays as it was, whatever was written since; some walks go on with it."""
        self._hit("go on with copy" if go_on_there else "open copy")
        rng = np.random.default_rng(seed)
        at = int(rng.integers(len(self.copies)))
        path, model = self.copies[at]
        index = self._opened(path, "r+" if go_on_there else "r", verify=bool(rng.random() < 0.3))
        assert_same(index, model)
        self._search(index, model, rng, "budget")
        if not go_on_there:
            index.close()
            return
        while self.readers:
            self.close_reader()
        self.index.close()
        if self.path is not None:
            shutil.rmtree(self.path)
        del self.copies[at]
        self.index, self.path, self.model = index, path, model

    @rule()
    def compact(self) -> None:
        self._hit("compact")
        self.index.compact()
        assert_same(self.index, self.model)

    @rule()
    def purge(self) -> None:
        if self.readers:
            self._hit("purge beside readers")
            with pytest.raises(IndexLockedError):
                self.index.compact(purge=True)
            assert_same(self.index, self.model)
            return
        self._hit("purge")
        self.index.compact(purge=True)
        self.model.forget_unused_names()
        if self.path is not None:
            copied = _copied(self.path, self._fresh())
            held = b"".join(file.read_bytes() for file in sorted(copied.rglob("*")) if file.is_file())
            shutil.rmtree(copied)
            standing = [document.metadata["mark"] for document in self.model.documents.values() if document.metadata]
            marks = held.count(_MARK.encode())
            assert marks == sum(mark.encode() in held for mark in standing) == len(standing), "removed metadata is left"
            kind = bands(self.model.codec).at(0)
            if not self.model.whole and not kind.scaled:  # six bytes or more, which nothing else has by chance
                alike = b"".join(kind.encode(each.tokens).codes.tobytes() for each in self.model.documents.values())
                for codes in kind.encode(np.array(self.model.gone, np.float32).reshape(-1, self.model.dim)).codes:
                    gone = codes.tobytes()
                    assert gone in alike or gone not in held, "a removed vector is left"
        assert_same(self.index, self.model)

    # crashes: another process costs as much as a dozen other steps, so there are a few in a walk only

    @precondition(lambda self: self.path is not None and self.crashes["copy"] < 1)
    @rule(seed=_SEEDS, replace=st.booleans())
    def copy_amid_an_addition(self, seed: int, replace: bool) -> None:
        """The folder as it stands while an addition is under way opens as it was before."""
        self._hit("copy amid an addition")
        self.crashes["copy"] += 1
        rng = np.random.default_rng(seed)
        copies: list[Path] = []

        def copying() -> Iterator[list[NDArray]]:
            yield vectors[:2]
            assert self.path is not None
            copies.append(_copied(self.path, self._fresh()))
            yield vectors[2:]

        vectors = self._documents(rng, 4)
        ids = [*self._some_ids(rng, 2), *self._new_ids(rng, 4)][:4] if replace else self._new_ids(rng, 4)
        before = self.model.copy()
        if replace:
            self.index.upsert(copying(), ids)
        else:
            self.index.add(copying(), ids)
        self.model.add(ids, vectors, None)
        with self._opened(copies[0], "r+", verify=True) as copy:
            assert_same(copy, before)
            copy.add(vectors, ids if not replace else None if not self.text else self._new_ids(rng, 4))
        shutil.rmtree(copies[0])

    @precondition(lambda self: self.path is not None and self.crashes["kill"] < 3)
    @rule(
        seed=_SEEDS,
        moment=st.integers(0, 25),
        after=st.booleans(),
        what=st.sampled_from(["add", "upsert", "remove", "compact"]),
    )
    def kill_a_writer(self, seed: int, moment: int, after: bool, what: str) -> None:
        """A process that dies at any step of a write leaves the state before it or after it; after it, once it answered."""
        rng = np.random.default_rng(seed)
        self.crashes["kill"] += 1
        moment = (moment + seed) % {"remove": 6, "compact": 12}.get(what, 26)  # a removal has few steps
        ids = self._some_ids(rng, 3) if what in ("upsert", "remove") else []
        if what in ("add", "upsert"):
            ids += self._new_ids(rng, 3)
        vectors, metadata = self._documents(rng, len(ids)), [self._metadata(rng) for _ in ids]
        before, done = self.model, self.model.copy()
        if what in ("add", "upsert"):
            done.add(ids, vectors, metadata)
        elif what == "remove":
            done.remove(ids)
        self.index.close()
        assert self.path is not None

        def work() -> None:
            assert self.path is not None
            index = self._opened(self.path, "r+")
            if what in ("add", "upsert"):
                batches = (vectors[at : at + 2] for at in range(0, len(vectors), 2))
                (index.add if what == "add" else index.upsert)(batches, ids, metadata)
            elif what == "remove":
                index.remove(ids)
            else:
                index.compact(purge=moment % 2 == 0 and not self.readers)

        killed = _killed(work, moment, after)
        self._hit("killed in another process" if killed else "write in another process")
        self.index = self._opened(self.path, "r+", verify=True)
        self.model = done
        if killed and self.index_is(before):
            self.model = before
        assert_same(self.index, self.model)

    def index_is(self, model: Model) -> bool:
        try:
            assert_same(self.index, model)
        except (AssertionError, MetaIndexError):
            return False
        return True


def _stopping(batches: Sequence[Any], error: type[Exception]) -> Iterator[Any]:
    yield from batches
    raise error


def _copied(source: Path, target: Path) -> Path:
    # By another process: to close the catalog's file in this one would drop the locks of SQLite's connections to it.
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    return target


def _killed(work: Callable[[], None], moment: int, after: bool) -> bool:
    """Run ``work`` in a forked child that dies at its ``moment``-th file operation or statement; whether it did."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, _KILLED), f"the child ended with {status}"
        return status == _KILLED
    try:
        deadly = {name: _deadly(Files, name, moment, after) for name in _CALLS}
        statement = _deadly(Catalog, "_run", moment, after)
        with mock.patch.multiple(Files, **deadly), mock.patch.object(Catalog, "_run", statement):
            work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


_CALLS = ("write", "sync", "make_folder", "rename", "sync_folder", "remove")
_calls = Counter[str]()


def _deadly(owner: Any, name: str, moment: int, after: bool) -> Callable[..., Any]:
    original = getattr(owner, name)

    def call(*args: Any, **named: Any) -> Any:
        if name == "_run" and args[1].startswith(("SELECT", "PRAGMA")):
            return original(*args, **named)
        _calls["all"] += 1
        if not after and _calls["all"] > moment:
            os._exit(_KILLED)
        result = original(*args, **named)
        if after and _calls["all"] > moment:
            os._exit(_KILLED)
        return result

    return call


RULES = frozenset(
    {
        "make",
        "add",
        "upsert",
        "remove",
        "remove by filter",
        "update metadata",
        *(f"fail {what}" for what in range(11)),
        *(f"search by {kind}" for kind in ("budget", "candidates", "plan")),
        *(f"search among {by}" for by in ("ids", "mask", "fields")),
        "look",
        "reopen",
        "open reader",
        "use reader",
        "refresh",
        "close reader",
        "snapshot",
        "save",
        "open copy",
        "go on with copy",
        "compact",
        "purge",
        "purge beside readers",
        "copy amid an addition",
        "killed in another process",
        "write in another process",
    }
)


def walk(steps: int, number: int | None) -> tuple[int, Counter[str], Counter[str]]:
    """At least ``steps`` steps, the same ones every time, or random ones by the seed ``number``.

    Returns the steps made, how often each rule was taken, and each path of the store.
    """
    hits.clear()
    machine = IndexMachine if number is None else seed(number)(type("SeededMachine", (IndexMachine,), {}))
    chosen = settings(
        max_examples=14 * steps // (10 * STEPS_IN_A_WALK) + 1,  # some walks end early, some steps find nothing to do
        stateful_step_count=STEPS_IN_A_WALK,
        derandomize=number is None,
        database=None,
        deadline=None,
        print_blob=False,
        verbosity=Verbosity.normal,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    with lowered() as paths:
        run_state_machine_as_test(machine, settings=chosen)
    return sum(hits.values()), hits, paths
