"""What every GPU scorer's operations have to get right, held to plain operations on a CPU: cases, apart from whose they are.

Cases take operations that work on tensors of the CPU: interpreted, or emulated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from metaindex.codecs import codec
from metaindex.device import keys
from metaindex.device.operations import DeviceQueries, Operations
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.scoring.device import uploaded
from tests import builders
from tests.kernels.outputs import assert_hits, assert_scores, poisoned, room
from tests.kernels.plain import PlainOperations

CPU = torch.device("cpu")
PLAIN = PlainOperations()


def stored(rng, kind, lengths, dim, **layout) -> DeviceTable:
    """The table of a snapshot for all tokens."""
    snapshot = builders.snapshot(builders.documents(rng, lengths, dim), kind, **layout)
    return Residency("cpu").table(snapshot, codec(kind), dim, max(lengths))


def asked(rng, kind, lengths, dim, width=None) -> DeviceQueries:
    queries = builders.queries(builders.documents(rng, lengths, dim), kind, width)
    whole = builders.request(queries, builders.snapshot(builders.documents(rng, [1], dim), kind), kind)
    return uploaded(whole, CPU)


def assert_scan(operations: Operations, table, queries, r_c, span=None, allow=None) -> None:
    """All scores, and hits above thresholds that some rows reach."""
    batch, span = len(queries), span or (0, table.rows)
    found, expected = poisoned(batch, table.rows), poisoned(batch, table.rows)
    for one, out in ((operations, found), (PLAIN, expected)):
        one.maxsim_scan(table, queries, r_c, span, allow, out)
    assert_scores(found, expected)
    # Between scores, so that rounding does not decide.
    ordered = expected[:, span[0] : span[1]].sort(dim=1).values
    half = ordered.shape[1] // 2
    middle = (ordered[:, half - 1] + ordered[:, half]) / 2
    thresholds = keys.encode(torch.where(middle.isfinite(), middle, -1e30), torch.zeros(batch))
    hits = [room(batch, table.rows + 1, thresholds) for _ in range(2)]
    for one, appended in zip((operations, PLAIN), hits):
        one.maxsim_scan(table, queries, r_c, span, allow, appended)
    assert_hits(*hits)


def assert_gather(operations: Operations, table, queries, r_c, candidates, allow=None) -> None:
    shape = len(queries), candidates.shape[1]
    found, expected = poisoned(*shape), poisoned(*shape)
    hits = [room(shape[0], shape[1] + 1) for _ in range(2)]
    for one, out, appended in ((operations, found, hits[0]), (PLAIN, expected, hits[1])):
        one.maxsim_gather(table, queries, r_c, candidates, allow, out)
        one.maxsim_gather(table, queries, r_c, candidates, allow, appended)
    assert_scores(found, expected)
    assert_hits(*hits)


def scan_and_gather(rng, operations: Operations, kind: str, dim: int = 40, *, gather: bool = True) -> None:
    """Ragged documents in segments, parts of a snapshot, masks, places and thresholds."""
    count = 45
    table = stored(rng, kind, rng.integers(1, 7, count).tolist(), dim, segments=3, sequence=rng.permutation(count))
    allow = torch.from_numpy(rng.random(count) < 0.6)
    for lengths, r_c, mask in (([4, 0, 3], 6, None), ([1], 1, allow), ([1, 1, 1, 1], 3, allow), ([5], 5, None)):
        queries = asked(rng, kind, lengths, dim)
        for span in ((0, count), (7, 31)):
            assert_scan(operations, table, queries, r_c, span, mask)
        if not gather:
            continue
        lists = torch.from_numpy(np.stack([rng.permutation(count)[:20] for _ in lengths]))
        lists[:, 3] = -1
        for candidates in (lists, lists[:1]):
            assert_gather(operations, table, queries, r_c, candidates, mask)


def dimensions(rng, operations: Operations, kind: str, dim: int, batches: Sequence[Sequence[int]] = ([1], [4], [5, 2])) -> None:
    """Dimensions that tiles do not divide, with one query token, one query and several."""
    table = stored(rng, kind, [3, 3, 3, 3, 3], dim)
    for lengths in batches:
        queries = asked(rng, kind, lengths, dim)
        found, expected = poisoned(len(lengths), 5), poisoned(len(lengths), 5)
        for one, out in ((operations, found), (PLAIN, expected)):
            one.maxsim_scan(table, queries, 3, (0, 5), None, out)
        assert_scores(found, expected)


def more_tokens_than_a_tile(
    rng, operations: Operations, kind: str = "float16", budgets: Sequence[int] = (150, 128, 65)
) -> None:
    """Loops over document tokens and over query tokens, with documents and queries that end in each of their steps."""
    table = stored(rng, kind, [150, 128, 70, 64, 1], 16)
    queries = asked(rng, kind, [140, 64, 1, 129], 16)
    for r_c in budgets:
        found, expected = poisoned(4, 5), poisoned(4, 5)
        for one, out in ((operations, found), (PLAIN, expected)):
            one.maxsim_scan(table, queries, r_c, (0, 5), None, out)
        assert_scores(found, expected)


def exact_int8_sums(operations: Operations, dim: int) -> None:
    """The largest sums there can be: at 260 they still fit a float32's lower bits, at 261 they do not."""
    docs = [np.ones((2, dim), np.float32), -np.ones((1, dim), np.float32)]
    snapshot = builders.snapshot(docs, "int8")
    table = Residency("cpu").table(snapshot, codec("int8"), dim, 2)
    queries = uploaded(builders.request(builders.queries([docs[0]] * 2, "int8"), snapshot, "int8"), CPU)
    assert queries.scales is not None
    scale = float(queries.scales[0, 0])
    expected = torch.tensor([dim * 127 * 127], dtype=torch.float32) * scale * scale
    found = poisoned(2, 2)
    operations.maxsim_scan(table, queries, 2, (0, 2), None, found)
    assert_scores(found, torch.cat([2 * expected, -2 * expected]).expand(2, 2))
    assert torch.equal(found[:, 0], -found[:, 1])


def far_away(table: DeviceTable, first: int) -> DeviceTable:
    """The same documents, all of one segment and with all tokens, as the rows from ``first`` on of a snapshot that has no
    others in memory: its addresses start that much lower."""
    count, token = first + table.rows, table.dim * codec(table.codec).dtype.itemsize
    widths = table.widths.long()
    scaled = table.scales is not None and table.token_scales is not None
    return dataclasses.replace(
        table,
        rows=count,
        first_rows=torch.tensor([0, count]),
        segment_rows=(count,),
        level_rows=((count,) * len(widths),),
        codes=table.codes - first * widths * token,
        scales=table.scales - first * widths * 4 if scaled else None,
        token_codes=table.token_codes - first * table.token_widths.long() * token,
        token_scales=table.token_scales - first * table.token_widths.long() * 4 if scaled else None,
    )


def addresses_beyond_32_bits(rng, operations: Operations, kind: str, batches: Sequence[Sequence[int]] = ([1], [3, 2])) -> None:
    """Rows so high that elements and bytes of a level count beyond 2**31 and 2**32."""
    dim, count, first = 64, 6, 2**30
    table = stored(rng, kind, [4] * count, dim)
    far = far_away(table, first)
    assert first * dim > 2**32
    for lengths in batches:
        queries = asked(rng, kind, lengths, dim)
        batch = len(lengths)
        expected = poisoned(batch, count)
        PLAIN.maxsim_scan(table, queries, 4, (0, count), None, expected)
        found, hits = poisoned(batch, count), room(batch, count + 1)
        candidates = torch.arange(first, first + count)[None]
        operations.maxsim_gather(far, queries, 4, candidates, None, found)
        assert_scores(found, expected)
        operations.maxsim_scan(far, queries, 4, (first, first + count), None, hits)
        for b in range(batch):
            scores, places = keys.decode(hits.keys[b, 1 : count + 1])
            order = places.argsort()
            assert places[order].tolist() == list(range(first, first + count))
            assert_scores(scores[order], expected[b])


def many_segments(rng, operations: Operations, kind: str = "float16") -> None:
    """More of them than a gather looks at together, some of them empty of deeper levels."""
    count = 150
    lengths = rng.integers(1, 4, count).tolist()
    table = stored(rng, kind, lengths, 16, segments=count)
    queries = asked(rng, kind, [2, 3], 16)
    candidates = torch.from_numpy(rng.permutation(count)[None])
    found, expected = poisoned(2, count), poisoned(2, count)
    for one, out in ((operations, found), (PLAIN, expected)):
        one.maxsim_gather(table, queries, 3, candidates, None, out)
    assert_scores(found, expected)


def nothing_to_score(rng, operations: Operations) -> None:
    table = stored(rng, "float32", [2, 1], 8)
    hits = room(2, 3)
    operations.maxsim_scan(table, asked(rng, "float32", [1, 2], 8), 2, (1, 1), None, hits)
    operations.maxsim_gather(table, asked(rng, "float32", [1, 2], 8), 2, torch.empty((2, 0)).long(), None, hits)
    assert hits.counts.tolist() == [1, 1]


def topk(rng, operations: Operations, k: int, count: int = 1100) -> None:
    """Counts from none to all, of keys that are poisoned beyond them."""
    hits_keys = torch.from_numpy(rng.permutation(4 * count).reshape(4, count) - count)
    counts = torch.tensor([count, 0, 257, 3], dtype=torch.int32)
    expected = PLAIN.topk(hits_keys, counts, k)
    for b, held in enumerate(counts.tolist()):
        hits_keys[b, held:] = 2**62
    assert torch.equal(operations.topk(hits_keys, counts, k), expected)


def topk_of_65536(rng, operations: Operations) -> None:
    count = 70_000
    hits_keys = torch.from_numpy(rng.permutation(count)[None] - count // 2) * 2**33
    counts = torch.tensor([count - 100], dtype=torch.int32)
    assert torch.equal(operations.topk(hits_keys, counts, 65_536), PLAIN.topk(hits_keys, counts, 65_536))


def keys_of_the_host(operations: Operations) -> None:
    """Zeros, infinities, denormals: through a scan of documents whose scores they are."""
    values = np.array([0.0, -0.0, 1.5, -1.5, 3e38, -3e38, 1e-40, -1e-40, np.inf, -np.inf, np.nan], np.float32)
    table = stored(np.random.default_rng(0), "float32", [1] * len(values), 1)
    table.held[0].codes.reshape(-1).copy_(torch.from_numpy(values))
    queries = DeviceQueries(torch.ones((1, 1, 1)), None, torch.ones(1, dtype=torch.int32))
    hits = room(1, len(values) + 1)
    operations.maxsim_scan(table, queries, 1, (0, len(values)), None, hits)
    expected = keys.encode(torch.from_numpy(values), torch.arange(len(values)))
    assert hits.keys[0, 1:].sort().values.tolist() == expected.sort().values.tolist()


def repeats_bit_for_bit(rng, operations: Operations, kind: str = "bfloat16", lengths: Sequence[int] = (3, 2)) -> None:
    table = stored(rng, kind, rng.integers(1, 9, 30).tolist(), 48)
    queries = asked(rng, kind, lengths, 48)
    found = [poisoned(len(lengths), 30) for _ in range(2)]
    for out in found:
        operations.maxsim_scan(table, queries, 8, (0, 30), None, out)
    assert torch.equal(*found)
