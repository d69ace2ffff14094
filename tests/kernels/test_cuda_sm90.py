"""The scan on Hopper on the emulator, host code and bindings included, against plain operations, and when it is chosen."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from metaindex import MetaIndex
from metaindex.codecs import codec
from metaindex.device.operations import DeviceQueries
from metaindex.device.residency import Residency
from metaindex.errors import BackendError
from metaindex.scoring.cuda import CudaScorer
from metaindex.scoring.device import uploaded
from tests import builders
from tests.kernels import cases, emulated
from tests.kernels.emulated import EmulatedOperations
from tests.kernels.outputs import assert_scores, poisoned
from tests.tolerances import score_tolerance

if why := emulated.why_not():
    pytest.skip(f"these tests emulate the kernels: {why}", allow_module_level=True)

KINDS = ("float16", "bfloat16", "int8")
every_codec = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def rng():
    return np.random.default_rng(43)


@pytest.fixture
def pinned():
    return EmulatedOperations("90a", "sm90")


def on_hopper(operations, before):
    return ["maxsim_scan_kernel" in name for name in operations.launches[before:]]


@every_codec
def test_scan(rng, pinned, kind):
    before = len(pinned.launches)
    cases.scan_and_gather(rng, pinned, kind, 48, gather=False)
    assert all(on_hopper(pinned, before))


@every_codec
@pytest.mark.parametrize("dim", [16, 64, 80, 128, 144, 528, 1040])
def test_dimensions_that_slices_do_not_divide(rng, pinned, kind, dim):
    """With queries that stay in shared memory and, wide ones, that come with the documents."""
    cases.dimensions(rng, pinned, kind, dim, ([1], [5, 2], [16] * 9, [33] * 5))


LENGTHS = {
    "one token": [1],
    "one query": [16],
    "tiles in turn": [16, 0, 9],
    "rows of both": [16, 2, 16, 5, 16],
    "two blocks of rows": [16, 3] * 8,
    "queries of a block each": [40, 33, 64, 1, 0],
    "waves": [40] * 13,
    "one query in parts": [65],
    "queries in parts": [130, 64, 5],
    "single tokens": [1] * 70,
}


@every_codec
@pytest.mark.parametrize("shape", LENGTHS)
def test_queries_of_every_shape(rng, pinned, kind, shape):
    documents = [1, 2, 3, 8, 9, 16, 20, 7, 5, 33, 1, 1, 4]
    table = cases.stored(rng, kind, documents, 32, segments=2)
    queries = cases.asked(rng, kind, LENGTHS[shape], 32)
    allow = torch.from_numpy(rng.random(len(documents)) < 0.7)
    for r_c, mask in ((33, None), (6, allow)):
        cases.assert_scan(pinned, table, queries, r_c, allow=mask)


@every_codec
@pytest.mark.parametrize("edges", [None, (1, 3, 70, 301), (301,), (*range(1, 18), 301)])
def test_budgets_at_and_inside_the_edges_of_levels(rng, pinned, kind, edges):
    """From 256 documents a tile to one in two blocks of columns."""
    table = cases.stored(rng, kind, [301, 1, 17, 64, 65, 128, 130, 300, 5], 16, segments=2, edges=edges)
    queries = cases.asked(rng, kind, [5, 3], 16)
    for r_c in (1, 2, 3, 5, 16, 17, 33, 64, 65, 129, 256, 257, 301) if edges is None else (3, 17, 65, 257, 301):
        found, expected = poisoned(2, 9), poisoned(2, 9)
        for one, out in ((pinned, found), (cases.PLAIN, expected)):
            one.maxsim_scan(table, queries, r_c, (0, 9), None, out)
        assert_scores(found, expected)


@every_codec
def test_padding_never_wins(pinned, kind):
    """All similarities are negative, of short documents in a wide level and of short queries in a wide batch."""
    rng = np.random.default_rng(3)
    direction = np.abs(rng.standard_normal(48)).astype(np.float32)
    docs = [-np.outer(rng.uniform(0.5, 1, t), direction).astype(np.float32) for t in (1, 3, 6, 11, 64, 5)]
    snapshot = builders.snapshot(docs, kind, edges=(64,))
    table = Residency("cpu").table(snapshot, codec(kind), 48, 64)
    asked = builders.queries([np.outer([1, 0.5], direction).astype(np.float32)] * 3, kind, width=5)
    queries = uploaded(builders.request(asked, snapshot, kind), cases.CPU)
    cases.assert_scan(pinned, table, queries, 64)


@pytest.mark.parametrize("dim", [272, 4096])
def test_int8_sums_are_exact(pinned, dim):
    cases.exact_int8_sums(pinned, dim)


@every_codec
def test_addresses_beyond_32_bits(rng, pinned, kind):
    cases.addresses_beyond_32_bits(rng, pinned, kind, ([3], [16] * 9))


@every_codec
@pytest.mark.parametrize("lengths", [(3,), (9,) * 16])
def test_scores_repeat_bit_for_bit(rng, pinned, kind, lengths):
    cases.repeats_bit_for_bit(rng, pinned, kind, lengths)


@pytest.mark.parametrize(
    "options",
    [
        {"delivery": "early", "seed": 1},
        {"delivery": "random", "seed": 2, "multiprocessors": 7},
        {"delivery": "random", "seed": 3, "multiprocessors": 1},
    ],
    ids=lambda options: options["delivery"] + str(options["seed"]),
)
def test_copies_that_arrive_at_any_time(rng, options):
    operations = EmulatedOperations("90a", "sm90", **options)
    table = cases.stored(rng, "float16", [*rng.integers(1, 80, 12).tolist(), 79], 136, segments=2)
    for lengths in ([7], [16] * 9):
        cases.assert_scan(operations, table, cases.asked(rng, "float16", lengths, 136), 79)


def test_batches_are_scanned_by_it_and_few_tokens_are_not(rng):
    operations = EmulatedOperations("90a")
    table = cases.stored(rng, "float16", [4, 3, 9, 1], 32)
    for lengths, chosen in (([16], False), ([16] * 4, False), ([16] * 5, True)):
        queries = cases.asked(rng, "float16", lengths, 32)
        before = len(operations.launches)
        cases.assert_scan(operations, table, queries, 9)
        assert set(on_hopper(operations, before)) == {chosen}
        assert operations.scan_path(table, queries, 9, 4)[0] == ("sm90" if chosen else "portable")
        before = len(operations.launches)
        cases.assert_gather(operations, table, queries, 9, torch.tensor([[2, 0, -1]]))
        assert not any(on_hopper(operations, before))


def test_searches_and_captured_ones(rng):
    """Through the facade: a scan of a batch, then gathers, on an index with removed documents."""
    index = MetaIndex(16, 20, codec="float16")
    index.add([rng.standard_normal((t, 16), dtype=np.float32) for t in rng.integers(1, 20, 40)])
    index.remove(range(0, 40, 7))
    operations = EmulatedOperations("90a")
    index._scorers.register(CudaScorer(index._residency, operations))
    queries = rng.standard_normal((6, 16, 16), dtype=np.float32)
    before = len(operations.launches)
    for plan in ("(16,2)>20 (16,8)>9 (16,20)", "(16,20)"):
        ours = index.search(queries, k=5, scorer="cuda", plan=plan)
        expected = index.search(queries, k=5, scorer="cpu", plan=plan)
        assert (ours.ids == expected.ids).all()
        np.testing.assert_allclose(ours.scores, expected.scores, **score_tolerance(expected.scores))
        captured = index.capture(6, 16, k=5, scorer="cuda", plan=plan)
        scores, rows = captured(torch.from_numpy(queries))
        assert (captured.ids(rows) == ours.ids).all()
        assert (scores.numpy() == ours.scores).all()
    assert any(on_hopper(operations, before))
    assert not all(on_hopper(operations, before))


def test_the_portable_kernels_can_be_pinned(rng):
    operations = EmulatedOperations("90a", "portable")
    table, queries = cases.stored(rng, "int8", [4, 3, 9, 1], 32), cases.asked(rng, "int8", [16] * 5, 32)
    before = len(operations.launches)
    cases.assert_scan(operations, table, queries, 9)
    assert not any(on_hopper(operations, before))
    path, why = operations.scan_path(table, queries, 9, 4)
    assert path == "portable"
    assert why.startswith("path=tile")


def test_what_pinned_kernels_can_not_serve_is_told(rng):
    pinned = EmulatedOperations("90a", "sm90")
    queries = builders.queries(builders.documents(rng, [2], 33), "float16")
    request = builders.request(queries, builders.snapshot(builders.documents(rng, [1], 33), "float16"), "float16")
    scorer = emulated.emulated_scorer("90a", "sm90")
    assert "multiple of 16 bytes" in scorer.supports(request).why
    assert emulated.emulated_scorer("90a").supports(request).ok
    assert "capability 9.0" in emulated.emulated_scorer("80", "sm90").supports(request).why
    table = cases.stored(rng, "float16", [1, 2], 33)
    with pytest.raises(BackendError, match=r"cuda:sm90 can't scan: .*16 bytes"):
        pinned.maxsim_scan(table, cases.asked(rng, "float16", [2], 33), 2, (0, 2), None, poisoned(1, 2))


def test_queries_that_the_copy_engine_can_not_read(rng, pinned):
    """They are a view that starts between two multiples of 16 bytes."""
    table, whole = cases.stored(rng, "float16", [1, 2], 8), torch.zeros(33, dtype=torch.float16)
    start = 1 if whole.data_ptr() % 16 == 0 else 0
    queries = DeviceQueries(whole[start : start + 8].view(1, 1, 8), None, torch.ones(1, dtype=torch.int32))
    with pytest.raises(ValueError, match="queries: expected codes at a multiple of 16 bytes"):
        pinned.maxsim_scan(table, queries, 2, (0, 2), None, poisoned(1, 2))


def test_boxes_are_made_once_for_a_table_and_a_budget(rng, pinned):
    table, queries = cases.stored(rng, "float16", [4, 3, 9, 1], 32), cases.asked(rng, "float16", [3], 32)
    for r_c in (9, 3):
        cases.assert_scan(pinned, table, queries, r_c)
    made = {key[1]: kept for key, kept in table._derived.items() if key[0] is pinned.core}
    assert set(made) == {9, 3}
    assert all(memory.data_ptr() % 128 == 0 for _, memory in made.values())
    cases.assert_scan(pinned, table, cases.asked(rng, "float16", [3, 20], 32), 9)
    assert {key[1]: kept for key, kept in table._derived.items() if key[0] is pinned.core} == made  # the very same ones
    boxes, made = weakref.ref(made[9][1]), {}
    pinned._reached = []
    gc.collect()
    assert boxes() is not None
    del table
    gc.collect()
    assert boxes() is None


def test_boxes_outlive_operations(rng):
    """Those of a captured search may be gone before it is."""
    table, queries = cases.stored(rng, "float16", [4, 3, 9, 1], 32), cases.asked(rng, "float16", [3], 32)
    operations = EmulatedOperations("90a", "sm90")
    cases.assert_scan(operations, table, queries, 9)
    (boxes,) = [weakref.ref(kept[1]) for key, kept in table._derived.items() if key[0] is operations.core]
    del operations
    gc.collect()
    assert boxes() is not None
