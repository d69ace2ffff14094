"""What the compiled module promises beyond scores: verdicts, top k, large arrays, threads, forks, and clear refusals."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import pytest

from metaindex import _native
from metaindex.codecs import CODECS, Parts
from metaindex.scoring.cpu import CpuScorer
from metaindex.storage.segment import Level, Segment
from metaindex.storage.snapshot import Snapshot
from metaindex.types import Levels
from tests import builders
from tests.contract.scorers import PAIRS, SCORERS, SPECIAL, answer
from tests.tolerances import score_tolerance

core = _native.core


def test_verdicts_give_reasons():
    features = core.features()
    assert features["serial"][0]
    assert features["generic"][0]
    rng = np.random.default_rng(0)
    for codec in CODECS:
        assert core.serves(core.default_isa(codec), codec)[0]
        stored = builders.snapshot(builders.documents(rng, [2], 8), codec)
        request = builders.request(builders.queries(builders.documents(rng, [1], 8), codec), stored, codec)
        assert SCORERS["cpu"].supports(request).ok
        for isa, (there, why) in features.items():
            verdict = CpuScorer(isa).supports(request)
            assert verdict.why
            assert verdict.ok == (there and codec in SPECIAL.get(f"cpu:{isa}", CODECS))
            if not there:
                assert verdict.why == why


def test_missing_module_is_a_verdict(monkeypatch):
    monkeypatch.setattr(_native, "missing", "no such file")
    rng = np.random.default_rng(0)
    stored = builders.snapshot(builders.documents(rng, [2], 8), "int8")
    request = builders.request(builders.queries(builders.documents(rng, [1], 8), "int8"), stored, "int8")
    assert CpuScorer().supports(request) == (False, "the compiled module is missing (no such file)")


def test_kernel_is_a_pure_function():
    names = {core.kernel("serial", codec, lanes, dim) for codec in CODECS for lanes in (1, 16, 500) for dim in (1, 8192)}
    assert names == {"serial"}
    for isa, codec in [("avx512", "float16"), ("avx512vnni", "int8"), ("avx512bf16", "bfloat16")]:
        if core.serves(isa, codec)[0]:
            assert [core.kernel(isa, codec, lanes, 128) for lanes in (1, 2, 3, 17)] == [
                f"{isa} {layout}" for layout in ("rows", "rows", "pairs", "quads")
            ]
    with pytest.raises(ValueError, match="isa: expected one of serial, generic"):
        core.kernel("mmx", "int8", 16, 128)


@pytest.mark.parametrize(("scorer", "codec"), [pair for pair in PAIRS if "cpu" in pair[0] and "float32" not in pair])
def test_more_than_two_to_the_31_elements(scorer, codec):
    """Codes of 2**31 elements and more take address space, and memory only where they are touched. A GPU's would be copied
    whole: tests/kernels and tests/gpu have that case for them."""
    dim, width, rows = 4096, 64, 2**31 // (4096 * 64) + 2
    parts = Parts(np.zeros((rows, width, dim), CODECS[codec].dtype), np.zeros((rows, width), np.float32))
    rng = np.random.default_rng(5)
    last = builders.documents(rng, [width], dim)[0]
    encoded = CODECS[codec].encode(last)
    parts.codes[-1] = encoded.codes
    if encoded.scales is not None and parts.scales is not None:
        parts.scales[-1] = encoded.scales
    sequence = np.arange(rows)
    level = Level.of(0, width, CODECS[codec], parts if CODECS[codec].scaled else Parts(parts.codes, None))
    segment = Segment("large", rows, (level,), np.full(rows, width, np.int32), sequence, sequence)
    stored = Snapshot(1, Levels((width,)), (segment,), np.empty(0, np.int64))
    asked = builders.queries(builders.documents(rng, [5], dim), codec)
    small = builders.snapshot([last], codec, edges=(width,))
    expected, _ = answer("reference", builders.request(asked, small, codec))
    allow = np.zeros(rows, bool)
    allow[[0, -1]] = True
    for rest in ({"allow": allow}, {"candidates": np.array([[rows - 1, 0]])}):
        scores, found = answer(scorer, builders.request(asked, stored, codec, k=2, **rest))
        at = found[0].tolist().index(rows - 1)
        np.testing.assert_allclose(scores[0, at], expected[0, 0], **score_tolerance(expected))


def test_fifty_thousand_candidates_and_a_k_above_them():
    rng = np.random.default_rng(6)
    stored = builders.snapshot(builders.documents(rng, [1] * 300, 16), "int8")
    asked = builders.queries(builders.documents(rng, [2], 16), "int8")
    candidates = rng.integers(0, 300, (1, 50_000))
    raw, _ = answer("cpu", builders.request(asked, stored, "int8", candidates=candidates))
    whole, _ = answer("cpu", builders.request(asked, stored, "int8"))
    assert (raw[0] == whole[0][candidates[0]]).all()
    scores, rows = answer("cpu", builders.request(asked, stored, "int8", candidates=candidates, k=65_536, num_threads=2))
    named = np.unique(candidates)
    assert sorted(rows[0, : len(named)]) == named.tolist()
    assert (rows[0, len(named) :] == -1).all()
    assert (np.diff(scores[0, : len(named)]) <= 0).all()


@pytest.mark.parametrize("k", [1, 7, 2049, 70_000])
def test_topk(k):
    rng = np.random.default_rng(7)
    scores = rng.integers(0, 90, (3, 65_600)).astype(np.float32)
    scores[0, 5], scores[1, 9] = np.nan, -np.inf
    sequence = rng.permutation(65_600)
    best, columns = np.full((3, k), np.nan, np.float32), np.full((3, k), -7, np.int64)
    core.topk(scores, sequence, best, columns, num_threads=2)
    for b in range(3):
        kept = np.flatnonzero(scores[b] > -np.inf)
        expected = kept[np.lexsort((sequence[kept], -scores[b][kept]))][:k]
        assert (columns[b, : len(expected)] == expected).all()
        assert (columns[b, len(expected) :] == -1).all()
        assert (best[b, : len(expected)] == scores[b][expected]).all()
        assert np.isneginf(best[b, len(expected) :]).all()


def test_nan_never_breaks_the_order():
    rng = np.random.default_rng(8)
    docs = builders.documents(rng, [3] * 40, 16)
    docs[4][:] = np.nan
    stored = builders.snapshot(docs, "float32")
    asked = builders.queries(builders.documents(rng, [2], 16), "float32")
    scores, rows = answer("cpu", builders.request(asked, stored, "float32", k=40))
    assert rows[0].tolist().index(4) == 39
    assert np.isneginf(scores[0, 39])
    assert (np.diff(scores[0, :39]) <= 0).all()


def test_read_only_and_mapped_arrays(tmp_path):
    rng = np.random.default_rng(9)
    codes = rng.integers(-127, 128, (6, 4, 32)).astype(np.int8)
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    scales = np.ones((6, 4), np.float32)
    scales.setflags(write=False)
    answers = []
    for source in (codes, mapped):
        table = core.LevelTable("int8", 32, [0], [4], [([(source, scales)], np.full(6, 4, np.int32), np.arange(6))])
        out = np.full((1, 6), np.nan, np.float32)
        core.maxsim_scan(table, codes[:1], scales[:1], np.array([4], np.int32), 4, 4, out_scores=out)
        answers.append(out)
    assert (answers[0] == answers[1]).all()


def test_wrong_arrays_are_refused_by_name():
    codes, lengths, sequence = np.zeros((2, 4, 8), np.float32), np.full(2, 4, np.int32), np.arange(2)

    def table(codes=codes, lengths=lengths, sequence=sequence, starts=(0,), dim=8):
        return core.LevelTable("float32", dim, list(starts), [4], [([(codes, None)], lengths, sequence)])

    for wrong, text in [
        ({"codes": codes.astype(">f4")}, "codes: expected float32 .any, 4, 8., got buffer format '>f'"),
        ({"codes": np.asfortranarray(codes)}, "codes: expected a C-contiguous array"),
        ({"codes": codes.astype(np.float64)}, "codes: expected float32"),
        ({"codes": codes[:1]}, "level 0: expected a row for every document longer than 0 tokens, got 1"),
        ({"lengths": np.array([1, 2], np.int32)}, "lengths: expected falling numbers"),
        ({"lengths": np.array([1, 0], np.int32)}, "lengths: expected falling numbers of at least 1, got 0 at row 1"),
        ({"sequence": sequence[:1]}, "sequence: expected int64 .2., got"),
        ({"starts": (1,)}, "starts: expected levels"),
        ({"dim": 0}, "dim: expected 1 to 131072, got 0"),
    ]:
        with pytest.raises(ValueError, match=text):
            table(**wrong)
    good = table()
    out = np.empty((1, 2), np.float32)
    query = (np.zeros((1, 3, 8), np.float32), None, np.array([3], np.int32))
    with pytest.raises(ValueError, match=r"lengths: expected 0\.\.3, got 4"):
        core.maxsim_scan(good, query[0], None, np.array([4], np.int32), 3, 4, out)
    with pytest.raises(ValueError, match="scores: expected 2 columns, got 3"):
        core.maxsim_scan(good, *query, 3, 4, np.empty((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"candidates: expected rows in 0\.\.1 or -1, got 2"):
        core.maxsim_gather(good, *query, 3, 4, np.array([[0, 2]]), out)
    with pytest.raises(ValueError, match="num_threads: expected at least 1, got 0"):
        core.maxsim_scan(good, *query, 3, 4, out, num_threads=0)
    out.setflags(write=False)
    with pytest.raises(ValueError, match="scores: expected a writable array"):
        core.maxsim_scan(good, *query, 3, 4, out)


def test_int8_sums_at_the_largest_dimension():
    dim = 1 << 17
    ones = np.ones((1, dim), np.float32)
    stored = builders.snapshot([ones, -ones], "int8")
    for name in (scorer for scorer, codec in PAIRS if codec == "int8" and scorer != "reference"):
        for count in (1, 3, 20):
            request = builders.request(builders.queries([np.repeat(ones, count, 0)], "int8"), stored, "int8", k=2)
            scores, rows = answer(name, request)
            np.testing.assert_allclose(scores, [[count * dim, -count * dim]], rtol=1e-5)
            assert rows.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="dim: expected 1 to 131072"):
        _native.core.LevelTable("int8", dim + 1, [0], [1], [])


def test_the_process_may_end_while_daemon_threads_search():
    program = """
import threading, time, numpy as np, metaindex
index = metaindex.MetaIndex(codec="int8")
index.add(np.ones((2000, 16, 64), np.float32))
def forever():
    while True:
        index.search(np.ones((8, 64), np.float32))
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_many_callers_at_once():
    rng = np.random.default_rng(10)
    stored = builders.snapshot(builders.documents(rng, [8] * 500, 64), "int8")
    asked = builders.queries(builders.documents(rng, [16], 64), "int8")
    expected, _ = answer("cpu", builders.request(asked, stored, "int8", num_threads=2))
    wrong = []

    def search() -> None:
        for _ in range(20):
            scores, _ = answer("cpu", builders.request(asked, stored, "int8", num_threads=3))
            if (scores != expected).any():
                wrong.append(scores)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _search_in_child(asked, stored, expected, queue):
    scores, _ = answer("cpu", builders.request(asked, stored, "int8", num_threads=2))
    queue.put(bool((scores == expected).all()))


def test_a_forked_child_makes_its_own_threads():
    rng = np.random.default_rng(11)
    stored = builders.snapshot(builders.documents(rng, [8] * 2000, 64), "int8")
    asked = builders.queries(builders.documents(rng, [16], 64), "int8")
    expected, _ = answer("cpu", builders.request(asked, stored, "int8", num_threads=2))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_search_in_child, args=(asked, stored, expected, queue))
    child.start()
    assert queue.get(timeout=30)
    child.join(timeout=30)
    assert child.exitcode == 0
