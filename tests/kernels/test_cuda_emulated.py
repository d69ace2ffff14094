"""The portable CUDA kernels on the emulator, host code and bindings included, against plain operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaindex.codecs import CODECS
from metaindex.device.operations import DeviceQueries
from tests.kernels import cases, emulated
from tests.kernels.emulated import EmulatedOperations
from tests.kernels.outputs import assert_scores, poisoned

if why := emulated.why_not():
    pytest.skip(f"these tests emulate the kernels: {why}", allow_module_level=True)

every_codec = pytest.mark.parametrize("kind", CODECS)


@pytest.fixture
def rng():
    return np.random.default_rng(41)


@pytest.fixture
def operations():
    return EmulatedOperations("80")


@every_codec
@pytest.mark.parametrize("dim", [40, 33])
def test_scan_and_gather(rng, operations, kind, dim):
    cases.scan_and_gather(rng, operations, kind, dim)


@every_codec
@pytest.mark.parametrize("dim", [1, 8, 30, 33, 250, 520])
def test_dimensions_that_pieces_do_not_divide(rng, operations, kind, dim):
    """Copies of 16, 8, 4, 2 bytes and 1, streamed and in tiles."""
    cases.dimensions(rng, operations, kind, dim, ([1], [5, 2], [9] * 5))


# Query lengths, and the kernel that serves them: how many columns it has, and which of its loops go round.
SHAPES = {
    "one token": ([1], "stream_{}_2"),
    "one query": ([16], "stream_{}_2"),
    "two queries": ([16, 3], "stream_{}_4"),
    "four queries, one of them empty": ([16, 0, 9, 16], "stream_{}_8"),
    "one long query": ([61], "stream_{}_8"),
    "two groups of columns": ([16, 2, 16, 5, 16, 16], "tile_{}"),
    "more queries than a block has columns for": ([9] * 17, "tile_{}"),
    "queries in several passes": ([130, 64, 5], "tile_{}"),
}


@every_codec
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kernel(rng, operations, kind, shape):
    """Ragged documents that end in each step, budgets at and inside the edges of levels, with and without a mask."""
    lengths, kernel = SHAPES[shape]
    if kernel == "stream_{}_8" and kind == "float32":
        kernel = "tile_{}"  # its products are not made by tensor cores, and hold each column in registers
    documents = [1, 2, 3, 8, 9, 16, 20, 7, 5, 33, 1, 1, 4]
    table = cases.stored(rng, kind, documents, 24, segments=2, edges=(1, 3, 8, 33))
    queries = cases.asked(rng, kind, lengths, 24)
    allow = torch.from_numpy(rng.random(len(documents)) < 0.7)
    before = len(operations.launches)
    for r_c, mask in ((33, None), (1, None), (6, allow)):
        cases.assert_scan(operations, table, queries, r_c, allow=mask)
    assert set(operations.launches[before:]) == {f"metaindex_maxsim_{kernel.format(kind)}"}
    lists = torch.from_numpy(rng.integers(-1, len(documents), (len(lengths), 9)))
    for b, r_c in enumerate((33, 2)):
        own = torch.stack([torch.from_numpy(rng.permutation(len(documents))[:9]) for _ in lengths])
        own[:, b] = -1
        cases.assert_gather(operations, table, queries, r_c, own, allow if b else None)
    found, expected = poisoned(*lists.shape), poisoned(*lists.shape)
    for one, out in ((operations, found), (cases.PLAIN, expected)):
        one.maxsim_gather(table, queries, 8, lists, None, out)  # with repeats
    assert_scores(found, expected)


@every_codec
def test_more_tokens_than_a_tile(rng, operations, kind):
    cases.more_tokens_than_a_tile(rng, operations, kind)


@pytest.mark.parametrize("dim", [260, 261, 4096])
def test_int8_sums_are_exact(operations, dim):
    cases.exact_int8_sums(operations, dim)


@every_codec
def test_addresses_beyond_32_bits(rng, operations, kind):
    cases.addresses_beyond_32_bits(rng, operations, kind, ([1], [3, 2], [16] * 6))


def test_many_segments(rng, operations):
    cases.many_segments(rng, operations)


def test_nothing_to_score(rng, operations):
    cases.nothing_to_score(rng, operations)
    none = DeviceQueries(torch.empty((0, 1, 8)), None, torch.empty(0, dtype=torch.int32))
    operations.maxsim_scan(cases.stored(rng, "float32", [2], 8), none, 2, (0, 1), None, poisoned(0, 1))


@pytest.mark.parametrize("k", [1, 10, 64, 65, 300, 1024, 1025, 1500])
def test_topk(rng, operations, k):
    cases.topk(rng, operations, k)


@pytest.mark.parametrize("k", [100, 1025, 5000])
def test_topk_of_more_keys_than_a_slice(rng, operations, k):
    """Rounds over slices, and digits that many blocks count; with keys that differ in their last digits alone."""
    cases.topk(rng, operations, k, 20_000)
    close = torch.from_numpy(rng.permutation(9000)[None]) + 2**40
    counts = torch.tensor([9000], dtype=torch.int32)
    assert torch.equal(operations.topk(close, counts, k), cases.PLAIN.topk(close, counts, k))


def test_topk_of_65536(rng, operations):
    cases.topk_of_65536(rng, operations)


def test_keys_are_those_of_the_host(operations):
    cases.keys_of_the_host(operations)


@pytest.mark.parametrize("lengths", [(3, 2), (9,) * 9])
def test_scores_repeat_bit_for_bit(rng, operations, lengths):
    cases.repeats_bit_for_bit(rng, operations, lengths=lengths)


@pytest.mark.parametrize("multiprocessors", [1, 7])
def test_any_number_of_blocks(rng, multiprocessors):
    """Few blocks take many documents each, and many have none."""
    cases.scan_and_gather(rng, EmulatedOperations("80", multiprocessors=multiprocessors, seed=5), "float16")
