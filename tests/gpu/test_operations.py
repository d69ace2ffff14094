"""The operations of each backend on a GPU, with its own tiles, against plain operations on the CPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from metaindex.codecs import CODECS, codec
from metaindex.device import keys
from metaindex.device.encode import encode
from metaindex.device.operations import DeviceQueries, Hits
from metaindex.device.residency import Residency
from metaindex.scoring.device import uploaded
from metaindex.scoring.request import ScoreRequest
from tests import builders
from tests.gpu.card import DEVICE, every_backend, every_codec, every_scorer, scorer
from tests.kernels.outputs import assert_hits, assert_scores, poisoned, room
from tests.kernels.plain import PlainOperations

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """Documents and queries of those lengths, d numbers to a token; ``budgets``: r_c besides all tokens."""

    documents: tuple[int, ...]
    queries: tuple[int, ...]
    dim: int
    segments: int = 1
    budgets: tuple[int, ...] = ()


_RAGGED = tuple(1 + 7 * i % 70 for i in range(200))
SHAPES = {
    "one query": Shape((64,) * 200, (16,), 128, budgets=(1, 24, 32)),
    "a few queries": Shape((64,) * 200, (16,) * 3, 128),
    "a batch": Shape((64,) * 150, (16,) * 64, 128, segments=3, budgets=(8, 50)),
    "wide": Shape((64,) * 40, (16,), 3584, budgets=(4,)),
    "wide, a batch": Shape((64,) * 40, (16,) * 20, 3584),
    "one token": Shape((1,) * 2000, (1,), 128),
    "one token, a batch": Shape((1,) * 300, (1,) * 200, 384),
    "long": Shape((300,) * 30, (32, 32), 128, budgets=(256,)),
    "ragged": Shape(_RAGGED, (0, 1, 5, 16, 17, 31, 33), 96, segments=4, budgets=(1, 3, 60)),
    "odd": Shape(_RAGGED[:100], (16, 3), 33, segments=2, budgets=(7,)),
    "odd and wide": Shape(_RAGGED[:100], (16,), 250),
    "more tokens than a tile": Shape((150, 130, 128, 70, 64, 1) * 5, (140, 129, 64, 1), 40, budgets=(65,)),
}


# Those that differ most have every codec, the others one of each kind of product: compiling Triton's kernels takes the time.
_CODECS = dict.fromkeys(("one query", "a batch", "ragged"), tuple(CODECS))
every_shape = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in SHAPES for kind in _CODECS.get(name, ("bfloat16", "int8"))]
)


@dataclass(frozen=True, eq=False)
class Case:
    """A request, its arguments on the CPU, and what plain operations make of them."""

    request: ScoreRequest
    allow: torch.Tensor
    candidates: torch.Tensor

    @functools.cached_property
    def queries(self) -> DeviceQueries:
        return uploaded(self.request, CPU)

    @functools.cached_property
    def table(self) -> Any:
        return Residency(str(CPU)).table(self.request.snapshot, self.request.codec, self.request.dim, self.r_c)

    @property
    def r_c(self) -> int:
        return self.request.budget.r_c

    @functools.cached_property
    def scores(self) -> torch.Tensor:
        """Of all rows, none of them left out."""
        out = poisoned(len(self.queries), self.table.rows)
        PlainOperations().maxsim_scan(self.table, self.queries, self.r_c, (0, self.table.rows), None, out)
        return out

    def hits(self, rows: torch.Tensor, scores: torch.Tensor, wanted: torch.Tensor) -> Hits:
        """What is appended of ``rows`` [B, C] with those scores, where about the best quarter of the wanted ones is above the
        thresholds, which lie between two scores, so that rounding does not decide."""
        kept = max(1, int(wanted[0].sum()) // 4)
        ordered = scores.sort(dim=1, descending=True).values
        middle = (ordered[:, kept - 1] + ordered[:, kept]) / 2
        thresholds = keys.encode(torch.where(middle.isfinite(), middle, -1e30), torch.zeros(len(scores)))
        hits = room(*rows.shape, thresholds)
        found = keys.encode(scores, rows if self.table.places is None else self.table.places[rows])
        for b, key in enumerate(found):
            new = key[wanted[b] & (key > thresholds[b])]
            hits.keys[b, 1 : 1 + len(new)] = new
            hits.counts[b] += len(new)
        return hits


@functools.cache
def cases(name: str, kind: str) -> tuple[Case, ...]:
    shape, rng = SHAPES[name], np.random.default_rng(11)
    count, batch = len(shape.documents), len(shape.queries)
    documents = builders.documents(rng, shape.documents, shape.dim)
    stored = builders.snapshot(documents, kind, segments=shape.segments, sequence=rng.permutation(count))
    asked = builders.queries(builders.documents(rng, shape.queries, shape.dim), kind)
    candidates = np.stack([rng.permutation(count)[: count // 2] for _ in range(batch)])
    candidates[:, 3] = -1
    allow, rows = torch.from_numpy(rng.random(count) < 0.6), torch.from_numpy(candidates)
    budgets = [(max(shape.queries), r_c) for r_c in (*shape.budgets, max(shape.documents))]
    return tuple(Case(builders.request(asked, stored, kind, budget), allow, rows) for budget in budgets)


def on_device(case: Case) -> tuple[Any, DeviceQueries]:
    request = case.request
    table = Residency(str(DEVICE)).table(request.snapshot, request.codec, request.dim, case.r_c)
    return table, uploaded(request, DEVICE)


@every_scorer
@every_shape
def test_maxsim_scan(backend, name, kind):
    operations = scorer(backend, cases(name, kind)[-1].request).operations
    for case in cases(name, kind):
        table, queries = on_device(case)
        rows, batch = table.rows, len(queries)
        for span in ((0, rows), (rows // 3, rows - rows // 5)):
            for allow in (None, case.allow):
                within = (torch.arange(rows) >= span[0]) & (torch.arange(rows) < span[1])
                wanted = within if allow is None else within & allow
                mask = None if allow is None else allow.to(DEVICE)
                found = poisoned(batch, rows, device=DEVICE)
                operations.maxsim_scan(table, queries, case.r_c, span, mask, found)
                expected = case.scores.masked_fill(~wanted, -torch.inf)
                assert_scores(found[:, span[0] : span[1]], expected[:, span[0] : span[1]])
                assert found[:, ~within].isnan().all()
                plain = case.hits(torch.arange(rows).expand(batch, -1), expected, wanted.expand(batch, -1))
                hits = room(batch, rows, plain.thresholds.to(DEVICE), DEVICE)
                operations.maxsim_scan(table, queries, case.r_c, span, mask, hits)
                assert_hits(hits, plain)


@every_scorer
@every_shape
def test_maxsim_gather(backend, name, kind):
    operations = scorer(backend, cases(name, kind)[-1].request).operations
    for case in cases(name, kind):
        table, queries = on_device(case)
        batch = len(queries)
        for lists, allow in ((case.candidates, None), (case.candidates, case.allow), (case.candidates[:1], None)):
            mask = None if allow is None else allow.to(DEVICE)
            every = lists.expand(batch, -1)
            wanted = every >= 0 if allow is None else (every >= 0) & allow[every.clamp(min=0)]
            expected = case.scores.gather(1, every.clamp(min=0)).masked_fill(~wanted, -torch.inf)
            found = poisoned(*every.shape, device=DEVICE)
            operations.maxsim_gather(table, queries, case.r_c, lists.to(DEVICE), mask, found)
            assert_scores(found, expected)
            plain = case.hits(every.clamp(min=0), expected, wanted)
            hits = room(*every.shape, plain.thresholds.to(DEVICE), DEVICE)
            operations.maxsim_gather(table, queries, case.r_c, lists.to(DEVICE), mask, hits)
            assert_hits(hits, plain)


@every_scorer
@every_codec
@pytest.mark.parametrize("count", [1, 2048, 2049, 50_000])
def test_long_lists(backend, kind, count):
    """With repeats and in any order, which scores may have and hits don't."""
    case = cases("ragged", kind)[-1]
    operations = scorer(backend, case.request).operations
    table, queries = on_device(case)
    lists = torch.from_numpy(np.random.default_rng(5).integers(0, table.rows, (len(queries), count)))
    found = poisoned(*lists.shape, device=DEVICE)
    operations.maxsim_gather(table, queries, case.r_c, lists.to(DEVICE), None, found)
    assert_scores(found, case.scores.gather(1, lists))


@every_backend
@pytest.mark.parametrize("k", [1, 10, 100, 1000, 2049, 65_536])
@pytest.mark.parametrize("count", [1100, 70_000, 1 << 20])
def test_topk(backend, k, count):
    """Of every count of keys, from none to all; those beyond are poison."""
    operations = scorer(backend).operations
    rng = np.random.default_rng(6)
    each = (torch.from_numpy(rng.permutation(5 * count).reshape(5, count)) - count) * 2**20
    counts = torch.tensor([count, 0, count // 2 + 1, 3, count - 1], dtype=torch.int32)
    expected = PlainOperations().topk(each, counts, k)
    for b, held in enumerate(counts.tolist()):
        each[b, held:] = 2**62
    assert torch.equal(operations.topk(each.to(DEVICE), counts.to(DEVICE), k).cpu(), expected)


@every_codec
@pytest.mark.parametrize("dim", [1, 33, 128, 3584])
def test_queries_are_encoded_as_on_the_host(kind, dim):
    """Bit for bit: zeros, denormals, ties and large numbers included."""
    rng = np.random.default_rng(7)
    tokens = rng.standard_normal((50, dim)).astype(np.float32)
    tokens[3], tokens[4], tokens[5] = 0, 1e-42, 60_000 * rng.choice([-1, 1], dim)
    tokens[6] = np.resize(np.arange(-127, 128, dtype=np.float32) + 0.5, dim)
    expected = codec(kind).encode(tokens)
    codes = torch.empty(tokens.shape, dtype=getattr(torch, kind), device=DEVICE)
    scales = None if expected.scales is None else torch.empty(len(tokens), device=DEVICE)
    encode(kind, torch.from_numpy(tokens).to(DEVICE), codes, scales)
    assert codes.view(torch.uint8).cpu().numpy().tobytes() == expected.codes.tobytes()
    if scales is not None:
        assert scales.cpu().numpy().tobytes() == expected.scales.tobytes()


@every_scorer
@every_codec
def test_scores_repeat_bit_for_bit(backend, kind):
    for name in ("one query", "a batch", "ragged"):
        case = cases(name, kind)[-1]
        operations = scorer(backend, case.request).operations
        table, queries = on_device(case)
        found = [poisoned(len(queries), table.rows, device=DEVICE) for _ in range(3)]
        for out in found:
            operations.maxsim_scan(table, queries, case.r_c, (0, table.rows), None, out)
        assert all(torch.equal(found[0], one) for one in found)
