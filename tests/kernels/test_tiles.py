"""Which tiles are chosen, and that what a kernel is compiled for does not depend on N, B or k. Nothing is compiled here."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from metaindex.scoring.triton import why_not
from tests.kernels import hollow

if why := why_not("cpu"):
    pytest.skip(f"launches are made of Triton's kernels: {why}", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from metaindex.kernels import maxsim_gather, maxsim_scan, tiles, topk
from metaindex.kernels.tiles import Card, Problem

CARDS = [Card(80, 108), Card(86, 84), Card(89, 128), Card(90, 132), Card(100, 148), Card(120, 188)]
H200 = CARDS[3]
DIMS = [1, 3, 16, 33, 96, 128, 250, 256, 384, 2048, 3584, 4096, 5120, 8192]


def problems():
    counts = (1, 2, 16, 17, 64, 130)
    for codec, dim, r_q, r_c, batch, indirect in itertools.product(
        tiles.ITEM_BYTES, DIMS, counts, (1, 3, 8, 64, 300), (1, 3, 64), (False, True)
    ):
        yield Problem(codec, dim, r_q, r_c, batch, indirect)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: f"sm_{card.capability}")
def test_tiles_fit(card):
    for problem in problems():
        tile = tiles.tile(card, problem)
        item, threads = tiles.ITEM_BYTES[problem.codec], 32 * tile.warps
        assert all(number & (number - 1) == 0 for number in tile[:6]), (problem, tile)
        assert tiles.shared_bytes(card, problem, tile) * tile.programs <= card.shared_bytes, (problem, tile)
        # Accumulators, of which a thread has 255 registers for everything; keys, twice as wide; addresses of 64 bits.
        assert tile.rows * tile.columns <= 128 * threads, (problem, tile)
        assert tile.queries * tile.documents <= 32 * threads, (problem, tile)
        assert tile.columns * tile.dims * item <= 32 * threads * problem.alignment, (problem, tile)
        if tile.rows > 1:
            assert tile.rows >= 16
            assert tile.columns >= 16
            assert tile.dims >= (32 if problem.codec == "int8" else 16)
        assert tile.tokens < 2 * problem.r_c
        assert tile.query_tokens < 2 * problem.r_q or problem.batch == 1
        if problem.batch == 1:
            assert tile.queries == 1


def test_choices_of_note():
    batch = tiles.tile(H200, Problem("bfloat16", 128, 16, 64, 64))
    assert (batch.queries, batch.documents) == (8, 2)
    assert tiles.tile(H200, Problem("int8", 128, 1, 1, 1)).rows == 1
    assert tiles.tile(H200, Problem("int8", 128, 1, 1, 2)).rows == 64
    assert tiles.tile(H200, Problem("bfloat16", 3584, 16, 64, 64)).columns == 256
    assert tiles.tile(CARDS[1], Problem("bfloat16", 3584, 16, 64, 64)).columns == 128


def test_runs_leave_work_for_every_multiprocessor():
    tile = tiles.tile(H200, Problem("bfloat16", 128, 16, 64, 1))
    assert tiles.run_length(H200, tile, 10, 1) == tile.documents
    assert tiles.run_length(H200, tile, 2**30, 1) == 16 * tile.documents
    for rows in (1, 1000, 10**5, 10**6):
        length = tiles.run_length(H200, tile, rows, 1)
        assert length == tile.documents or rows / length >= 16 * H200.processors


def test_tiles_can_be_printed():
    run = subprocess.run([sys.executable, "-m", "metaindex.kernels.tiles"], capture_output=True, text=True, check=True)
    assert "sm_90 bfloat16 64 x (16, 64) d  128: documents 2, tokens 64, queries 8, query_tokens 16" in run.stdout


def compiled_for(launch) -> str:
    """What Triton would compile the launch's kernel for."""
    kernel = launch.kernel
    if not isinstance(kernel, triton.JITFunction):  # interpreted here
        kernel = triton.JITFunction(kernel.fn, **kernel.kwargs)
    bind = create_function_from_signature(kernel.signature, kernel.params, make_backend(GPUTarget("cuda", 90, 32)))
    _, specialization, options = bind(*launch.arguments, **launch.options)
    return str((kernel.fn.__name__, specialization, options))


@pytest.mark.parametrize("kind", tiles.ITEM_BYTES)
@pytest.mark.parametrize("full", [True, False])
def test_a_new_number_of_documents_compiles_nothing(kind, full):
    found = set()
    for rows, segments in ((1, 1), (16, 1), (17, 3), (1000, 1), (1 << 20, 5), (10**6 + 1, 40), (2**31 - 1, 1)):
        low = max(0, rows - 10**6 - 1)
        table = hollow.table(kind, 128, 64, rows, full=full, segments=segments)
        queries = hollow.queries(kind, 3, 16, 128)
        for span in {(low, rows), (low + rows // 3000, rows), (0, min(rows, 16))}:
            out = hollow.hits(3, rows + 5)
            found.add(compiled_for(maxsim_scan.launch(H200, table, queries, 64, span, None, out)))
        for count in (1, 16, 1000):
            for lists in (1, 3):
                candidates = torch.zeros((lists, count), dtype=torch.int64)
                found.add(compiled_for(maxsim_gather.launch(H200, table, queries, 64, candidates, None, out)) + str(lists))
    assert len(found) == 3  # a scan, a gather from one list, a gather from lists of their own


@pytest.mark.parametrize("kind", tiles.ITEM_BYTES)
@pytest.mark.parametrize("tokens", [1, 16, 24, 130])
def test_a_new_batch_compiles_little(kind, tokens):
    """One query, a few and many; one more where one query token needs no matrix unit."""
    table = hollow.table(kind, 128, 64, 1000)
    found = set()
    for batch in (*range(1, 70), 128, 500):
        out = torch.zeros((batch, 1))
        found.add(
            compiled_for(maxsim_scan.launch(H200, table, hollow.queries(kind, batch, tokens, 128), 64, (0, 1000), None, out))
        )
    assert len(found) <= 3


def test_a_new_k_compiles_nothing():
    found = set()
    for batch, count, k in itertools.product((1, 2, 17), (1, 16, 300, 5000, 1 << 20), (1, 10, 16, 1000, 65536)):
        out = torch.zeros(1, dtype=torch.int64).expand(batch, k)
        hits = hollow.hits(batch, count)
        found |= {compiled_for(launch) for launch in topk.launches(H200, hits.keys, hits.counts, out)}
    assert len(found) == 2  # one for short lists, one for long ones
