"""The Triton kernels under Triton's interpreter, with the tiles of GPUs, against plain operations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metaindex.codecs import CODECS, codec
from metaindex.device import keys
from metaindex.device.operations import DeviceQueries
from metaindex.device.residency import Residency
from metaindex.scoring import triton as scoring
from metaindex.scoring.device import uploaded
from metaindex.scoring.triton import TritonOperations, TritonScorer
from tests import builders
from tests.kernels.outputs import assert_hits, assert_scores, poisoned, room
from tests.kernels.plain import PlainOperations

if why := scoring.why_not("cpu"):
    pytest.skip(f"these tests interpret the kernels: {why}", allow_module_level=True)

from metaindex.kernels.tiles import INTERPRETER, Card

CPU = torch.device("cpu")
CARDS = [Card(80, 1), Card(90, 1), Card(100, 1), Card(INTERPRETER, 1)]
every_card = pytest.mark.parametrize(
    "card", CARDS, ids=lambda card: f"sm_{card.capability}" if card.capability else "interpreter"
)
every_codec = pytest.mark.parametrize("kind", CODECS)


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def stored(rng, kind, lengths, dim, **layout):
    """A snapshot and its table for all tokens."""
    snapshot = builders.snapshot(builders.documents(rng, lengths, dim), kind, **layout)
    return Residency(CPU).table(snapshot, codec(kind), dim, max(lengths))


def asked(rng, kind, lengths, dim, width=None) -> DeviceQueries:
    queries = builders.queries(builders.documents(rng, lengths, dim), kind, width)
    whole = builders.request(queries, builders.snapshot(builders.documents(rng, [1], dim), kind), kind)
    return uploaded(whole, CPU)


@every_card
@every_codec
def test_scan_and_gather(rng, card, kind):
    """Ragged documents in segments, parts of a snapshot, masks, places and thresholds."""
    dim, count = 40, 45
    table = stored(rng, kind, rng.integers(1, 7, count).tolist(), dim, segments=3, sequence=rng.permutation(count))
    operations, plain = TritonOperations(card), PlainOperations()
    allow = torch.from_numpy(rng.random(count) < 0.6)
    for lengths, r_c, mask in (([4, 0, 3], 6, None), ([1], 1, allow), ([1, 1, 1, 1], 3, allow), ([5], 5, None)):
        queries = asked(rng, kind, lengths, dim)
        batch = len(lengths)
        for span in ((0, count), (7, 31)):
            found, expected = poisoned(batch, count), poisoned(batch, count)
            for one, out in ((operations, found), (plain, expected)):
                one.maxsim_scan(table, queries, r_c, span, mask, out)
            assert_scores(found, expected)
            # Between scores, so that rounding does not decide.
            ordered = expected[:, span[0] : span[1]].sort(dim=1).values
            middle = (ordered[:, 11] + ordered[:, 12]) / 2
            thresholds = keys.encode(torch.where(middle.isfinite(), middle, -1e30), torch.zeros(batch))
            hits = [room(batch, count + 1, thresholds) for _ in range(2)]
            for one, out in zip((operations, plain), hits):
                one.maxsim_scan(table, queries, r_c, span, mask, out)
            assert_hits(*hits)
        lists = torch.from_numpy(np.stack([rng.permutation(count)[:20] for _ in range(batch)]))
        lists[:, 3] = -1
        for candidates in (lists, lists[:1]):
            found, expected = poisoned(batch, 20), poisoned(batch, 20)
            hits = [room(batch, 21) for _ in range(2)]
            for one, out, appended in ((operations, found, hits[0]), (plain, expected, hits[1])):
                one.maxsim_gather(table, queries, r_c, candidates, mask, out)
                one.maxsim_gather(table, queries, r_c, candidates, mask, appended)
            assert_scores(found, expected)
            assert_hits(*hits)


@every_card
@every_codec
@pytest.mark.parametrize("dim", [8, 33, 250, 520])
def test_dimensions_that_tiles_do_not_divide(rng, card, kind, dim):
    """With one query token, one query and several, in tiles that hold all dimensions and in such that don't."""
    table = stored(rng, kind, [3, 3, 3, 3, 3], dim)
    for lengths in ([1], [4], [5, 2]):
        queries = asked(rng, kind, lengths, dim)
        found, expected = poisoned(len(lengths), 5), poisoned(len(lengths), 5)
        for one, out in ((TritonOperations(card), found), (PlainOperations(), expected)):
            one.maxsim_scan(table, queries, 3, (0, 5), None, out)
        assert_scores(found, expected)


@every_card
def test_more_tokens_than_a_tile(rng, card):
    """Loops over document tokens and over query tokens, with documents and queries that end in each of their steps."""
    table = stored(rng, "float16", [150, 128, 70, 64, 1], 16)
    queries = asked(rng, "float16", [140, 64, 1, 129], 16)
    for r_c in (150, 128, 65):
        found, expected = poisoned(4, 5), poisoned(4, 5)
        for one, out in ((TritonOperations(card), found), (PlainOperations(), expected)):
            one.maxsim_scan(table, queries, r_c, (0, 5), None, out)
        assert_scores(found, expected)


@every_card
@pytest.mark.parametrize("dim", [260, 261, 4096])
def test_int8_sums_are_exact(card, dim):
    """The largest sums there can be: at 260 they still fit a float32's lower bits, at 261 they do not."""
    docs = [np.ones((2, dim), np.float32), -np.ones((1, dim), np.float32)]
    snapshot = builders.snapshot(docs, "int8")
    table = Residency(CPU).table(snapshot, codec("int8"), dim, 2)
    queries = uploaded(builders.request(builders.queries([docs[0]] * 2, "int8"), snapshot, "int8"), CPU)
    scale = float(queries.scales[0, 0])
    expected = torch.tensor([dim * 127 * 127], dtype=torch.float32) * scale * scale
    found = poisoned(2, 2)
    TritonOperations(card).maxsim_scan(table, queries, 2, (0, 2), None, found)
    assert_scores(found, torch.cat([2 * expected, -2 * expected]).expand(2, 2))
    assert torch.equal(found[:, 0], -found[:, 1])


@every_codec
@pytest.mark.parametrize("card", [CARDS[1], CARDS[3]], ids=["sm_90", "interpreter"])
def test_addresses_beyond_32_bits(rng, card, kind):
    """Rows so high that elements and bytes of a level count beyond 2**31 and 2**32: its addresses start that much lower."""
    dim, count, first = 64, 6, 2**30
    table = stored(rng, kind, [4] * count, dim)
    itemsize = codec(kind).dtype.itemsize
    far = dataclasses.replace(
        table,
        rows=first + count,
        first_rows=torch.tensor([0, first + count]),
        segment_rows=(first + count,),
        token_codes=table.token_codes - first * table.token_widths.long() * dim * itemsize,
        token_scales=None if table.token_scales is None else table.token_scales - first * table.token_widths.long() * 4,
        _tiles={},
    )
    assert first * dim > 2**32
    for lengths in ([1], [3, 2]):
        queries = asked(rng, kind, lengths, dim)
        batch = len(lengths)
        expected = poisoned(batch, count)
        PlainOperations().maxsim_scan(table, queries, 4, (0, count), None, expected)
        found, hits = poisoned(batch, count), room(batch, count + 1)
        candidates = torch.arange(first, first + count)[None]
        TritonOperations(card).maxsim_gather(far, queries, 4, candidates, None, found)
        assert_scores(found, expected)
        TritonOperations(card).maxsim_scan(far, queries, 4, (first, first + count), None, hits)
        for b in range(batch):
            scores, places = keys.decode(hits.keys[b, 1 : count + 1])
            order = places.argsort()
            assert places[order].tolist() == list(range(first, first + count))
            assert_scores(scores[order], expected[b])


def test_many_segments(rng):
    """More of them than a gather looks at together, some of them empty of deeper levels."""
    count = 150
    lengths = rng.integers(1, 4, count).tolist()
    table = stored(rng, "float16", lengths, 16, segments=count)
    queries = asked(rng, "float16", [2, 3], 16)
    candidates = torch.from_numpy(rng.permutation(count)[None])
    found, expected = poisoned(2, count), poisoned(2, count)
    for one, out in ((TritonOperations(), found), (PlainOperations(), expected)):
        one.maxsim_gather(table, queries, 3, candidates, None, out)
    assert_scores(found, expected)


def test_nothing_to_score(rng):
    table = stored(rng, "float32", [2, 1], 8)
    hits = room(2, 3)
    TritonOperations().maxsim_scan(table, asked(rng, "float32", [1, 2], 8), 2, (1, 1), None, hits)
    TritonOperations().maxsim_gather(table, asked(rng, "float32", [1, 2], 8), 2, torch.empty((2, 0)).long(), None, hits)
    assert hits.counts.tolist() == [1, 1]


@pytest.mark.parametrize("card", [CARDS[1], CARDS[3]], ids=["sm_90", "interpreter"])
@pytest.mark.parametrize("k", [1, 10, 64, 65, 300, 1500])
def test_topk(rng, card, k):
    """Counts from none to all, of keys that are poisoned beyond them."""
    count = 1100
    hits_keys = torch.from_numpy(rng.permutation(4 * count).reshape(4, count) - count)
    counts = torch.tensor([count, 0, 257, 3], dtype=torch.int32)
    expected = PlainOperations().topk(hits_keys, counts, k)
    for b, held in enumerate(counts.tolist()):
        hits_keys[b, held:] = 2**62
    assert torch.equal(TritonOperations(card).topk(hits_keys, counts, k), expected)


def test_topk_of_65536(rng):
    count = 70_000
    hits_keys = torch.from_numpy(rng.permutation(count)[None] - count // 2) * 2**33
    counts = torch.tensor([count - 100], dtype=torch.int32)
    assert torch.equal(TritonOperations().topk(hits_keys, counts, 65_536), PlainOperations().topk(hits_keys, counts, 65_536))


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the interpreter's maximum of a NaN
def test_keys_are_those_of_the_host():
    """Zeros, infinities, denormals: through a scan of documents whose scores they are."""
    values = np.array([0.0, -0.0, 1.5, -1.5, 3e38, -3e38, 1e-40, -1e-40, np.inf, -np.inf, np.nan], np.float32)
    table = stored(np.random.default_rng(0), "float32", [1] * len(values), 1)
    table.held[0].reshape(-1).copy_(torch.from_numpy(values))
    queries = DeviceQueries(torch.ones((1, 1, 1)), None, torch.ones(1, dtype=torch.int32))
    for card in CARDS:
        hits = room(1, len(values) + 1)
        TritonOperations(card).maxsim_scan(table, queries, 1, (0, len(values)), None, hits)
        expected = keys.encode(torch.from_numpy(values), torch.arange(len(values)))
        assert hits.keys[0, 1:].sort().values.tolist() == expected.sort().values.tolist()


def test_verdicts(monkeypatch, rng):
    request = builders.request(
        builders.queries(builders.documents(rng, [1], 4), "int8"),
        builders.snapshot(builders.documents(rng, [1], 4), "int8"),
        "int8",
    )
    assert TritonScorer(Residency(CPU)).supports(request).ok
    if not torch.cuda.is_available():
        assert "no NVIDIA driver" in TritonScorer(Residency(torch.device("cuda"))).supports(request).why
    assert "not on 'mps'" in TritonScorer(Residency(torch.device("mps"))).supports(request).why
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "lies on the CPU" in TritonScorer(Residency(CPU)).supports(request).why
    monkeypatch.setattr("triton.__version__", "3.5.1")
    assert "older than 3.6" in TritonScorer(Residency(CPU)).supports(request).why
    for missing in ("torch", "triton"):
        monkeypatch.setattr(
            scoring.importlib.util, "find_spec", lambda name, missing=missing: None if name == missing else name
        )
        assert f"{missing} is not installed" in TritonScorer(Residency(CPU)).supports(request).why


def test_scores_repeat_bit_for_bit(rng):
    table = stored(rng, "bfloat16", rng.integers(1, 9, 30).tolist(), 48)
    queries = asked(rng, "bfloat16", [3, 2], 48)
    found = [poisoned(2, 30) for _ in range(2)]
    for out in found:
        TritonOperations().maxsim_scan(table, queries, 8, (0, 30), None, out)
    assert torch.equal(*found)
