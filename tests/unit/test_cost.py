"""Stage times: the prediction in numbers, the fit that finds rates, the file that keeps them, and the command that measures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaindex import MetaIndex
from metaindex.bench import calibrate as measuring
from metaindex.bench.fit import Sample, best_threads, least_squares, rates
from metaindex.cli import main
from metaindex.codecs import codec as find_codec
from metaindex.execution import calibration
from metaindex.planning.cost import FarRates, LaneRates, OperationRates, Rates, StageWork, Threads
from tests import tolerances

LANES = (LaneRates(1, 1e-9, 2e-9, 1e-11), LaneRates(16, 5e-9, 3e-9, 4e-11))
SCAN = OperationRates(1e-6, 2e-9, 1e-9, 5e-8, 2e-8, LANES, 0.0, FarRates(byte=3e-11, near=1 << 22, away=1 << 29))
GATHER = OperationRates(4e-6, 0.0, 1e-9, 9e-8, 0.0, LANES, 8e-9, FarRates(3e-5, 1e-7, 5e-8, 1e-10, 1 << 22, 1 << 29))
RATES = Rates(SCAN, GATHER)


def work(scans=True, queries=1, r_q=16, documents=1000, r_c=8, dim=128, index=10_000, kept=10, levels=4) -> StageWork:
    return StageWork(
        scans=scans,
        queries=queries,
        query_tokens=r_q,
        lanes=r_q * (queries if scans else 1),
        documents=documents,
        comparisons=documents * (queries if scans else 1),
        tokens=documents * r_c,
        pieces=0 if scans else documents * levels,
        dim=dim,
        nbytes=documents * r_c * dim,
        footprint=index * r_c * dim,
        kept=kept,
    )


def test_a_scan_in_numbers():
    near = work(index=1000)  # a megabyte: it stays in a cache
    expected = 1e-6 + 16 * 128 * 1e-9 + 1000 * 5e-9 + 8000 * (3e-9 + 128 * 4e-11) + 10 * (5e-8 + 2e-8 * np.log(100))
    assert RATES.seconds(near) == pytest.approx(expected)
    far = work(r_q=1, documents=10**6, index=10**6, r_c=8)  # a gigabyte, which is more to read than to multiply
    slow = replace(RATES, scan=replace(SCAN, far=SCAN.far._replace(byte=1e-9)))
    arithmetic, memory = 8e6 * (2e-9 + 128 * 1e-11), 1.024e9 * 1e-9
    assert slow.seconds(far) - RATES.seconds(far) == pytest.approx(memory - max(arithmetic, 1.024e9 * 3e-11))


def test_visits_to_pages_in_numbers():
    gathered = work(scans=False, r_q=1, documents=100, index=10**6, levels=1, r_c=1)
    visits, pages = 100 + 100 * 128 / 4096, 10**6 * 128 / 4096
    first = pages * (1 - np.exp(-visits / pages)) / visits
    outside = np.log(10**6 * 128 / (1 << 22)) / np.log(1 << 7)
    missing = outside * (first + outside * (1 - first))
    memory = outside * 3e-5 + missing * (100 * 1e-7 + 100 * 5e-8 + 12_800 * 1e-10)
    expected = 4e-6 + 128e-9 + 100 * (1e-9 + 8e-9) + memory + 10 * 9e-8
    assert RATES.seconds(gathered) == pytest.approx(expected)
    assert GATHER.far.missing(work(scans=False, documents=10, index=1000)) == 0  # a megabyte: it stays in a cache
    most = GATHER.far.missing(work(scans=False, documents=10, index=10**6))
    again = GATHER.far.missing(work(scans=False, documents=10**6, index=10**4))
    assert most == pytest.approx(1, abs=0.02)
    assert again == pytest.approx(GATHER.far.outside(10**4 * 8 * 128) ** 2, abs=0.02)  # pages are read again and again


def test_lanes_between_and_beyond_those_measured():
    def of(lanes):
        return RATES.seconds(replace(work(index=1000), lanes=lanes))

    assert of(1) < of(8) < of(16)
    middle = (of(8) + of(9)) / 2
    assert middle == pytest.approx((of(1) + of(16)) / 2)
    assert of(64) - of(16) == pytest.approx(3 * (1000 * 5e-9 + 8000 * (3e-9 + 128 * 4e-11)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_more_work_never_takes_less_time(data):
    count = st.integers(1, 2000)
    given_work = {
        "scans": data.draw(st.booleans()),
        "queries": data.draw(st.integers(1, 40)),
        "r_q": data.draw(st.integers(1, 64)),
        "documents": data.draw(count),
        "r_c": data.draw(st.integers(1, 64)),
        "dim": data.draw(count),
        "index": data.draw(st.integers(2000, 10**7)),
    }
    less = RATES.seconds(work(**given_work))
    for name in ("queries", "documents", "r_c", "dim", "r_q"):
        more = {**given_work, name: 2 * given_work[name]}
        assert RATES.seconds(work(**more)) >= less
    threads = data.draw(st.integers(1, 64))
    several = Threads(32, 1e-5, 20.0, 8.0)
    fast = Rates(replace(SCAN, threads=several), replace(GATHER, threads=several))
    assert fast.seconds(work(**given_work), 1) == less
    assert fast.seconds(work(**given_work), threads) <= less


def test_threads_in_numbers():
    several = Rates(replace(SCAN, threads=Threads(4, 1e-5, 4.0, 2.0)), GATHER)
    large = work(documents=10**5, index=1000)
    alone, together = several.seconds(large), several.seconds(large, 4)
    constant = 1e-6 + 16 * 128 * 1e-9 + 10 * (5e-8 + 2e-8 * np.log(10**4))
    assert together == pytest.approx(constant + 1e-5 + (alone - constant) / 4)
    assert together < several.seconds(large, 2) < alone
    assert several.seconds(work(documents=10), 4) == several.seconds(work(documents=10))  # not worth a second thread


def samples(scans, shapes, threads=1, found=RATES):
    return [Sample(each, found.seconds(each, threads)) for each in (work(scans=scans, **shape) for shape in shapes)]


def test_the_fit_finds_the_rates_that_made_the_times():
    near, far = [], []
    for scans in (True, False):
        shapes = [
            {"queries": q, "r_q": r_q, "r_c": r_c, "dim": dim, "documents": n, "index": 1, "kept": kept, "levels": levels}
            for q, r_q in ((1, 1), (1, 16), (16, 1))
            for r_c, levels in ((1, 1), (16, 5), (64, 7))
            for dim in (64, 512)
            for n, kept in ((50, 10), (1000, 10), (1000, 500))
        ]
        near += samples(scans, shapes)
        far += samples(
            scans,
            [
                {"r_q": 1, "r_c": r_c, "dim": dim, "documents": n, "index": 10**6, "levels": levels}
                for r_c, levels in ((1, 1), (16, 5), (64, 7))
                for dim in (64, 512)
                for n in (100, 4000)
            ],
        )
    found = rates(near, [], far, 1 << 22)
    for sample in (*near, *far):
        assert found.seconds(sample.work) == pytest.approx(sample.seconds, rel=tolerances.FITTED_TIME)


def test_the_fit_finds_what_threads_do():
    threads = Threads(8, 1e-5, 6.0, 3.0)
    truth = replace(RATES, scan=replace(SCAN, threads=threads))
    shapes = [{"documents": n, "index": n, "r_q": r_q} for n in (10, 10**4, 10**6) for r_q in (1, 16)]
    measured = samples(True, shapes, 8, truth)
    found = best_threads(RATES, True, measured, 8)
    for sample in measured:
        assert found.seconds(sample.work, 8) == pytest.approx(sample.seconds, rel=tolerances.FITTED_THREADS)
    assert found.gather == RATES.gather


def test_no_rate_is_below_zero():
    columns = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found = least_squares(columns, np.array([3.0, 2.0, 1.0]))  # an unbounded fit falls
    assert (found >= 0).all()
    assert found[1] == pytest.approx(0, abs=1e-9)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration._loaded.cache_clear()
    yield tmp_path
    calibration._loaded.cache_clear()


def test_rates_are_kept_and_read(cache):
    assert calibration.rates("cpu", "int8") is None
    path = calibration.save({("cpu", "int8"): RATES})
    assert path.parent == cache / "metaindex"
    assert calibration.rates("cpu", "int8") == RATES
    calibration.save({("cpu", "float16"): replace(RATES, gather=SCAN)})
    assert calibration.known() == [("cpu", "float16"), ("cpu", "int8")]
    assert calibration.rates("cpu", "int8") == RATES
    assert calibration.rates("reference", "int8") is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_relative_cache_folder_is_passed_over(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert calibration.folder().is_absolute()


@pytest.mark.parametrize("change", ["cpu", "cores", "package", "version"])
def test_another_machine_or_version_has_a_file_of_its_own(cache, monkeypatch, change):
    calibration.save({("cpu", "int8"): RATES})
    known = calibration.machine()
    monkeypatch.setattr(calibration, "machine", lambda: {**known, change: "another"})
    calibration._loaded.cache_clear()
    assert calibration.rates("cpu", "int8") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"stage"', '"stages"'),
        lambda text: text.replace("4194304", "0"),
        lambda text: text.replace("4194304", '"x"'),
    ],
)
def test_a_damaged_file_counts_as_none(cache, damage):
    path = calibration.save({("cpu", "int8"): RATES})
    path.write_text(damage(path.read_text()))
    calibration._loaded.cache_clear()
    assert calibration.rates("cpu", "int8") is None
    calibration.save({("cpu", "int8"): RATES})
    assert calibration.rates("cpu", "int8") == RATES


def test_plans_and_results_tell_the_time(cache):
    index = MetaIndex(codec="int8", num_threads=1)
    index.add(np.random.default_rng(0).standard_normal((200, 8, 16)).astype(np.float32))
    plan, queries = "(1,1)>50 (*,*)", np.ones((2, 4, 16), np.float32)
    assert " ms " not in str(index.plan(plan=plan, query_tokens=4))
    assert {stage.predicted for stage in index.search(queries, plan=plan).stats} == {None}
    calibration.save({("cpu", "int8"): RATES})
    planned = index.plan(plan=plan, queries=2, query_tokens=4)
    assert " ms " in str(planned)
    found = index.search(queries, plan=plan)
    for stage, ran in zip(planned.stages, found.stats):
        assert ran.predicted == pytest.approx(stage.seconds)
        assert ran.seconds > 0
        assert "predicted" in str(ran)
    scan = index._searches.prepare(queries, "auto").work(planned.stages[0].step, None)
    assert (scan.scans, scan.lanes, scan.documents, scan.comparisons, scan.tokens) == (True, 2, 200, 400, 200)
    assert (scan.nbytes, scan.footprint, scan.kept) == (200 * 20, 200 * 20, 50)
    index.remove([0])
    assert index.search(queries, plan=plan).stats[0].predicted != found.stats[0].predicted
    assert index.search(queries, scorer="reference").stats[0].predicted is None


@pytest.fixture
def quick(monkeypatch):
    for name, value in {
        "_TURNS": 2,
        "_DIMS": (16, 32),
        "_LANES": ((1, 1), (16, 1), (4, 4)),
        "_NEAR_DOCUMENTS": (60, 100),
        "_FAR_BYTES": 1 << 20,
        "_FAR_CANDIDATES": (20, 100),
        "_KEPT": ((10, 50), (50, 100)),
    }.items():
        monkeypatch.setattr(measuring, name, value)


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_near_data_fits_a_cores_cache(codec, monkeypatch):
    monkeypatch.setattr(measuring, "core_cache_bytes", lambda: 1 << 19)
    indexes = measuring._near(codec)
    assert {(index.schema.dim, tokens) for index, tokens in indexes} == {(d, t) for d in (64, 512) for t in (1, 4, 16, 64)}
    for index, tokens in indexes:
        assert 1 <= len(index) <= 4000
        assert len(index) * tokens * find_codec(codec).bytes_per_token(index.schema.dim) <= 1 << 19


def test_doctor_calibrates_and_checks(cache, quick, capsys):
    assert main(["doctor", "--calibrate", "--codecs", "int8,float32", "--threads", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calibration"]["measured"] == "cpu, float32; cpu, int8"
    found = calibration.rates("cpu", "int8")
    assert {each.lanes for each in found.scan.lanes} == {1, 16}
    assert found.scan.threads.number == 2
    assert RATES.seconds(work()) > 0
    check = ["doctor", "--check", "--codecs", "int8", "--dims", "16", "--n", "150", "--turns", "1", "--threads", "1"]
    assert main(check) == 0
    assert "within a factor of 1.5" in capsys.readouterr().out
    assert main([*check, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * 5 * 2  # batches, budgets, a scan and 100 candidates
    assert all(row["predicted"] > 0 and row["measured"] > 0 for row in rows)


def test_a_check_needs_a_calibration(cache, capsys):
    assert main(["doctor", "--check", "--codecs", "int8", "--n", "50", "--dims", "8"]) == 1
    assert "run metaindex doctor --calibrate first" in capsys.readouterr().err
