"""metaindex: each GPU scorer with each codec, through the operations that its searches are made of.

Documents are encoded on the device and become the levels of a snapshot there; queries lie there too, as they do for everyone.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.floors import bytes_per_token
from benchmarks.gpu.problem import Answer, GpuProblem, Tokens
from metaindex._native import core
from metaindex.codecs import CODECS
from metaindex.codecs import codec as find_codec
from metaindex.device.encode import encode
from metaindex.device.operations import DeviceQueries
from metaindex.device.residency import Residency
from metaindex.errors import BackendError
from metaindex.scoring.device import DeviceScorer, Step
from metaindex.scoring.request import Queries, ScoreRequest
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Budget, Levels

BACKENDS = {"triton": ("metaindex.scoring.triton", "TritonScorer"), "cuda": ("metaindex.scoring.cuda", "CudaScorer")}
SCAN_PATHS = ("cuda:portable", "cuda:sm90")
"""A backend whose scans go to the kernels that are named: those that its own choice passes over are raced beside it."""
PLAIN = "plain"
"""The plain operations that kernels are tested against, on the CPU: what stands in for kernels in a dry run."""

_ENCODED_AT_ONCE = 1 << 27


def scorer(backend: str, residency: Residency) -> DeviceScorer:
    """The scorer of a backend. Whatever keeps it from being imported is raised."""
    if backend == PLAIN:
        from tests.kernels.plain import PlainOperations

        return DeviceScorer(PlainOperations(), residency)
    backend, _, path = backend.partition(":")
    module, name = BACKENDS[backend]
    imported = importlib.import_module(module)
    pinned = (imported.CudaOperations(path),) if path else ()
    made: DeviceScorer = getattr(imported, name)(residency, *pinned)
    return made


@dataclass(frozen=True, eq=False)
class Kept:
    """A problem's documents in one codec: levels of a snapshot, all on the device; queries alike."""

    codec: str
    snapshot: Snapshot
    residency: Residency
    levels: tuple[tuple[Tensor, Tensor | None], ...]
    queries: tuple[Tensor, Tensor | None]

    def tokens(self, r_c: int) -> Tokens:
        def decoded(rows: Tensor) -> Tensor:
            return torch.cat([_decoded(codes[rows], scales, rows) for codes, scales in self.levels], dim=1)[:, :r_c]

        return decoded

    @property
    def decoded_queries(self) -> Tensor:
        return _decoded(*self.queries)


@cache
def kept(problem: GpuProblem, codec: str) -> Kept:
    case = problem.case
    levels = Levels.doubling(case.doc_tokens)
    residency = Residency(str(problem.documents.device))
    made, parts = [], []
    for number in range(len(levels)):
        start, stop = levels.start(number), levels.stop(number)
        codes, scales = _encoded(problem.documents[:, start:stop], codec)
        nbytes = codes.nbytes + (0 if scales is None else scales.nbytes)
        made.append(Level(start, stop - start, case.documents, nbytes, CODECS[codec], _on_the_device))
        residency.adopt(made[-1], codes, scales)
        parts.append((codes, scales))
    places = np.arange(case.documents)
    lengths = np.full(case.documents, case.doc_tokens, np.int32)
    segment = Segment("made", case.documents, tuple(made), lengths, places, places)
    snapshot = Snapshot(1, levels, (segment,), np.empty(0, np.int64))
    return Kept(codec, snapshot, residency, tuple(parts), _encoded(problem.queries, codec))


def _on_the_device() -> Any:
    raise AssertionError("these documents never were on the host")


def _encoded(tokens: Tensor, codec: str) -> tuple[Tensor, Tensor | None]:
    codes = torch.empty(tokens.shape, dtype=getattr(torch, codec), device=tokens.device)
    scales = torch.empty(tokens.shape[:-1], device=tokens.device) if CODECS[codec].scaled else None
    size = max(1, _ENCODED_AT_ONCE // tokens[0].numel())
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        encode(codec, tokens[part].float(), codes[part], None if scales is None else scales[part])
    return codes, scales


def _decoded(codes: Tensor, scales: Tensor | None, rows: Tensor | None = None) -> Tensor:
    if scales is None:
        return codes.float()
    return codes.float() * (scales if rows is None else scales[rows])[..., None]


@dataclass(frozen=True, eq=False)
class OurEntry:
    step: Step
    kept: Kept

    def scores(self) -> Answer:
        return Answer(self.step.all_scores(), None)

    def best(self, k: int) -> Answer:
        return Answer(*self.step.best(k))

    @cached_property
    def decoded(self) -> tuple[Tensor, Tokens]:
        return self.kept.decoded_queries, self.kept.tokens(self.step.r_c)


@dataclass(frozen=True)
class Ours:
    backend: str
    codec: str
    package: str = "metaindex"
    ours: bool = True

    @property
    def name(self) -> str:
        return f"metaindex {self.backend} {self.codec}"

    @property
    def how(self) -> str:
        return "maxsim_scan or maxsim_gather, and topk, of its Operations; documents in levels, read in place"

    def why_not(self, case: GpuCase) -> str | None:
        if self.backend not in SCAN_PATHS:
            return None
        if case.candidates is not None:
            return "there is one way to gather, which the backend without a path takes"
        card = core.cuda_cards()[0]
        shape = (self.codec, case.dim, case.queries, case.query_tokens, case.doc_tokens, case.documents)
        chosen, why = core.cuda_scan_path(*shape, True, card)
        if self.backend.endswith(f":{chosen}"):
            return f"what the backend without a path takes: {why}"
        served, why = core.cuda_serves_sm90(self.codec, case.dim, case.doc_tokens, case.query_tokens, True, card[0])
        return None if served or self.backend == "cuda:portable" else why

    def keeps(self, case: GpuCase) -> Mapping[str, int]:
        tokens = case.documents * case.doc_tokens
        return {f"levels in {self.codec}": tokens * bytes_per_token(self.codec, case.dim)}

    def prepare(self, problem: GpuProblem, r_c: int) -> OurEntry:
        packed, case = kept(problem, self.codec), problem.case
        made = scorer(self.backend, packed.residency)
        if not (verdict := made.supports(self._request(problem, packed, r_c))).ok:
            raise BackendError(f"{self.backend} says no: {verdict.why}")
        table = packed.residency.table(packed.snapshot, find_codec(self.codec), case.dim, r_c)
        lengths = torch.full((case.queries,), case.query_tokens, dtype=torch.int32, device=table.device)
        queries = DeviceQueries(*packed.queries, lengths)
        return OurEntry(Step(made.operations, table, queries, r_c, problem.candidates), packed)

    def _request(self, problem: GpuProblem, packed: Kept, r_c: int) -> ScoreRequest:
        case, code = problem.case, find_codec(self.codec)
        asked = Queries(code.encode(problem.queries.float().cpu().numpy()), np.full(case.queries, case.query_tokens, np.int32))
        candidates = None if problem.candidates is None else problem.candidates.cpu().numpy()
        return ScoreRequest(asked, packed.snapshot, code, case.dim, Budget(case.query_tokens, r_c), candidates, k=case.k)


def ours(case: GpuCase, dry: bool) -> tuple[Ours, ...]:
    return tuple(Ours(backend, codec) for codec in case.codecs for backend in backends(dry))


def backends(dry: bool) -> tuple[str, ...]:
    """All of them, each pinned path after its backend."""
    return (PLAIN,) if dry else (*BACKENDS, *(path for path in SCAN_PATHS if path.partition(":")[0] in BACKENDS))
