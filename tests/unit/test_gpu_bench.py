"""The GPU benchmark without a GPU: its steps, its arithmetic, and a race in which plain Python stands in for kernels."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import DRY, fit, ours, outputs, paper, problem, race, report, runner, summary, targets, wheelhouse
from benchmarks.gpu.__main__ import RESULTS, main
from benchmarks.gpu.card import DryCard
from benchmarks.gpu.cases import CASES, PAPER
from benchmarks.gpu.contestant import GpuPeer, ScoreEntry, in_parts
from benchmarks.gpu.floors import floor
from benchmarks.gpu.process import POISONED, ROOT, Done, shortened
from benchmarks.gpu.runner import Context, State, Step
from benchmarks.gpu.steps import STEPS, by_findings, by_tests
from benchmarks.race import OURS_DECODED
from metaindex.device.devices import gpus
from metaindex.device.residency import Residency


def script(text: str, name: str = "step", **rest) -> Step:
    """A step that runs some Python; FOLDER in it is the step's folder."""
    return Step(name, "a test", lambda _, folder: [sys.executable, "-c", text.replace("FOLDER", repr(str(folder)))], 1, **rest)


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(tmp_path / "state", tmp_path / "wheels")


def statuses(context: Context, steps: list[Step]) -> list[str]:
    return [record["status"] for record in State(context.state).records(steps)]


# steps


def test_a_step_that_fails_is_recorded_and_the_run_goes_on(context):
    steps = [script("print('oh'); raise SystemExit('no')", "bad"), script("print('good')", "good")]
    seen: list[list[str]] = []
    assert runner.run(steps, context, say=lambda _: None, after=lambda: seen.append(statuses(context, steps))) == 0
    assert seen == [["failed"], ["failed", "passed"]]
    bad, good = State(context.state).records(steps)
    assert bad["why"] == "exit code 1: no"
    assert "oh" in bad["text"]
    assert good["text"] == "good\n"


def test_a_second_run_goes_on_where_the_first_ended(context, tmp_path):
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    steps = [script(count, "one"), script(count + "; raise SystemExit(1)", "two"), script(count, "three")]
    runner.run(steps[:2], context, say=lambda _: None)
    runner.run(steps, context, say=lambda _: None)
    assert (tmp_path / "count").read_text() == "xxx"
    assert statuses(context, steps) == ["passed", "failed", "passed"]
    State(context.state).forget("two")
    runner.run(steps, context, say=lambda _: None)
    assert (tmp_path / "count").read_text() == "xxxx"


def test_no_step_starts_that_would_end_too_late(context):
    long = dataclasses.replace(script("", "long"), expects=100)
    steps = [long, script("", "short")]
    assert runner.run(steps, context, seconds=50, say=lambda _: None) == 1
    assert State(context.state)["long"] is None
    assert State(context.state)["short"]["status"] == "passed"


def test_a_step_is_ended_after_its_limit_and_keeps_what_it_printed(context):
    step = script("import time; print('so far', flush=True); time.sleep(60)", limit=2)
    runner.run([step], context, say=lambda _: None)
    record = State(context.state)["step"]
    assert (record["status"], record["why"]) == ("failed", "ended after 2 s")
    assert "so far" in record["text"]
    assert record["seconds"] < 30


def test_a_step_that_cuts_the_run_off_twice_has_failed(context):
    state, step = State(context.state), script("")
    state["step"] = {"status": "running", "attempts": 1}
    assert runner.waiting(state, step)
    state["step"] = {"status": "running", "attempts": 2}
    assert not runner.waiting(state, step)
    assert state["step"]["status"] == "failed"
    assert "cut off" in state["step"]["why"]


def test_a_command_that_is_not_there_is_a_failure(context):
    runner.run([Step("gone", "a test", lambda *_: ["no-such-command-of-this-name"], 1)], context, say=lambda _: None)
    assert State(context.state)["gone"]["status"] == "failed"


@pytest.mark.parametrize("end", [f"sys.exit({POISONED})", "os.kill(os.getpid(), 9)"])
def test_a_race_goes_on_without_the_contestant_that_brings_it_down(context, end):
    text = f"""if True:
        import json, os, sys
        excluded = json.loads(sys.argv[sys.argv.index("--excluded") + 1])
        folder = FOLDER
        for name in ("calm", "wild"):
            open(folder + "/mark", "w").write(name)
            if name == "wild" and name not in excluded:
                {end}
        rows = [{{"contestant": name, "failed": why}} for name, why in excluded.items()]
        open(folder + "/rows.json", "w").write(json.dumps(rows))"""
    runner.run([script(text, race=True)], context, say=lambda _: None)
    record = State(context.state)["step"]
    assert record["status"] == "passed"
    (row,) = record["rows"]
    assert row["contestant"] == "wild"
    assert ("unusable" if "exit" in end else "SIGKILL") in row["failed"]


def test_a_race_that_everybody_brings_down_fails_and_names_the_last(context):
    text = f"import sys; open(FOLDER + '/mark', 'w').write('wild'); sys.exit({POISONED})"
    runner.run([script(text, race=True)], context, say=lambda _: None)
    assert State(context.state)["step"]["why"] == "wild left the device unusable"


def test_steps_have_their_own_names_and_end_within_ten_minutes():
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all(step.expects < step.limit <= 540 for step in STEPS)
    assert {f"race-{name}" for name in CASES} <= {step.name for step in STEPS}


def test_steps_of_tests_run_what_there_is(context):
    """Between them all of tests/gpu and tests/contract, each once."""
    found = {step.name: step.command(context, Path()) for step in STEPS if step.judge is by_tests}
    for part, selections in {"tests/gpu": ("not triton", "triton"), "tests/contract": ("not gpu", "cuda", "triton")}.items():
        assert (ROOT / part).is_dir()
        of_it = [command for command in found.values() if part in command]
        assert [command[command.index("--junitxml=junit.xml") - 1] for command in of_it] == list(selections)


def done(text: str = "", code: int = 0, folder: Path = Path(), rows: list | None = None, why: str = "") -> Done:
    return Done(code, text, rows or [], folder, why)


def test_findings_of_the_sanitizer_are_a_failure():
    assert by_findings(done("========= ERROR SUMMARY: 0 errors")).ok
    assert by_findings(done("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")).ok
    assert by_findings(done("========= ERROR SUMMARY: 3 errors", 9)).why.startswith("3 findings")
    assert not by_findings(done("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", 9)).ok
    assert "nothing was watched" in by_findings(done("hello")).why
    assert by_findings(done("ERROR SUMMARY: 0 errors", 1, rows=[{"failed": "no such scorer"}])).why == "no such scorer"


def test_a_file_of_skips_tests_nothing(tmp_path):
    for counts, code, ok in (("5,0,1", 0, True), ("5,1,0", 1, False), ("5,0,5", 0, False), ("0,0,0", 5, False)):
        tests, failures, skipped = counts.split(",")
        suite = f'<testsuite tests="{tests}" failures="{failures}" errors="0" skipped="{skipped}"/>'
        (tmp_path / "junit.xml").write_text(f"<testsuites>{suite}</testsuites>")
        assert by_tests(done("", code, tmp_path)).ok == ok
    assert not by_tests(done("", 1, tmp_path / "elsewhere")).ok


def test_long_texts_keep_their_ends():
    kept = shortened("a" * 5000 + "b" * 50_000 + "c" * 5000)
    assert len(kept) < 13_000
    assert kept.startswith("aaa")
    assert kept.endswith("ccc")


# arithmetic


def test_floors_are_those_of_the_formulas():
    """bytes = N * r_c * (d * b + scale bytes), FLOP = 2 * B * N * r_q * r_c * d, and the larger of the two times."""
    rates = {"read_gbs": 4300.0, "float16_gops": 788e3, "int8_gops": 1576e3}
    memory = floor(CASES["tok64-1M"], "int8", rates)
    assert memory.memory_ms == pytest.approx(1_000_000 * 64 * (128 + 4) / 4.3e12 * 1e3)
    assert memory.ms == memory.memory_ms
    batch = floor(CASES["me-16-64-q64"], "float16", rates)
    assert batch.arithmetic_ms == pytest.approx(2 * 64 * 100_000 * 16 * 64 * 3584 / 788e12 * 1e3)
    assert batch.ms == batch.arithmetic_ms
    # What design documents say of an H200 with these rates, as they round it.
    said = {"corpus-10k": 0.18, "tok64-1M": 3.8, "me-1-1": 0.17, "me-16-64": 10.7, "tok64-100k-q64": 2.1, "me-16-64-q64": 60}
    for name, milliseconds in said.items():
        digits = len(str(milliseconds).partition(".")[2])
        assert round(floor(CASES[name], "float16", rates).ms, digits) == milliseconds
    assert CASES["rerank-64"].nbytes(256) == 64 * 1000 * 64 * 256
    assert floor(CASES["budget"].at(8), "float16", rates).ms * 8 == pytest.approx(floor(CASES["budget"], "float16", rates).ms)


def test_a_case_that_does_not_fit_shrinks_and_says_so():
    case = CASES["me-16-64"]
    copies = [GpuPeer("p", "p", "float16", "", None, keeps=lambda case: {"copy": 2 * case.documents * 64 * 3584})]
    assert fit.fitting(case, copies, 1 << 40) == (case, "")
    room = 60 << 30
    smaller, why = fit.fitting(case, copies, room)
    assert 0 < smaller.documents < case.documents
    assert fit.bytes_of(smaller, copies) < room
    assert f"{smaller.documents:,} documents in place of 100,000" in why
    away = [dataclasses.replace(copies[0], why_not=lambda case: "no")]
    assert fit.fitting(case, away, room)[0].documents > smaller.documents
    with pytest.raises(MemoryError):
        fit.fitting(case, copies, 1000)


def row(name: str = "metaindex cuda float16", median: float = 1.0, **rest) -> dict:
    ours = name.startswith("metaindex")
    about = {"contestant": name, "ours": ours, "codec": name.split()[-1] if ours else "float16", "r_c": 64, "k": 100}
    times = {"median_ms": median, "memory_ms": 0.9, "extra_bytes": 0, "roofs": {"bfloat16_gops": 1e6}, "case": "tok64-1M"}
    return about | times | rest


def verdicts(case: str, *rows: dict) -> dict[str, dict]:
    first = targets.judged(CASES[case], list(rows))[0]
    return {target["target"]: target for target in first["targets"]}


def test_targets_are_met_at_their_bound_and_missed_beyond():
    bandwidth = "90 % of the bandwidth in float16"
    assert verdicts("tok64-1M", row(median=1.0))[bandwidth]["met"]
    missed = verdicts("tok64-1M", row(median=1.01))[bandwidth]
    assert not missed["met"]
    assert missed["value"] == pytest.approx(0.9 / 1.01)
    faster = "int8 1.8 times as fast as float16"
    assert verdicts("tok64-1M", row("metaindex cuda int8", 0.5), row(median=0.9))[faster]["met"]
    assert not verdicts("tok64-1M", row("metaindex cuda int8", 0.5), row(median=0.89))[faster]["met"]
    assert faster not in verdicts("tok64-1M", row("metaindex cuda int8", 0.5), row("metaindex triton float16"))


def test_other_targets():
    rate = verdicts("tok64-100k-q64", row(median=2.0))["65 % of the bf16 rate"]
    assert rate["value"] == pytest.approx(2 * 64 * 100_000 * 16 * 64 * 128 / 1e15 / 2e-3)
    peer = "as fast as the best peer in float16"
    assert verdicts("corpus-10k", row(median=1.0), row("a", 1.0), row("b", 3.0))[peer]["met"]
    assert not verdicts("corpus-10k", row(median=1.1), row("a", 1.0), row("b", 3.0))[peer]["met"]
    assert peer not in verdicts("corpus-10k", row(median=1.0), row("a", 0.5, k=None))  # no top-k there
    assert verdicts("rerank-1", row(graph_ms=0.025))["25 us by graph replay"]["met"]
    assert not verdicts("rerank-1", row(graph_ms=0.026))["25 us by graph replay"]["met"]
    share = "r_c / 64 of the full scan at level edges, 10 % and 20 us more"
    full = row(median=6.4)
    assert verdicts("budget", row(median=0.8 * 1.1 + 0.019, r_c=8), full)[share]["met"]
    assert not verdicts("budget", row(median=0.8 * 1.1 + 0.021, r_c=8), full)[share]["met"]
    assert share not in verdicts("budget", row(median=0.6, r_c=6), full)  # inside a level the loss is stated only
    assert targets.judged(CASES["budget"], [row(median=1.2, r_c=6), full])[0]["of_share"] == pytest.approx(2.0)
    memory = "at most 256 MiB besides the answer"
    assert verdicts("tok64-1M", row(extra_bytes=(256 << 20) + 1200))[memory]["met"]
    assert not verdicts("tok64-1M", row(extra_bytes=(256 << 20) + 1201 + 2**20))[memory]["met"]


def test_the_summary_counts_a_target_for_the_best_scorer_or_for_all():
    both = [row(median=2.0, extra_bytes=0), row("metaindex triton float16", 1.0, extra_bytes=2**30)]
    record = {"step": "race-tok64-1M", "status": "passed", "seconds": 1.0, "why": "", "rows": []}
    record["rows"] = targets.judged(CASES["tok64-1M"], both)
    found = {aim.target: aim for aim in summary.aims([record])}
    assert found["90 % of the bandwidth in float16"].met
    assert found["90 % of the bandwidth in float16"].contestant == "metaindex triton float16"
    assert not found["at most 256 MiB besides the answer"].met
    assert summary.exit_code([record], 0) == summary.FAILED
    assert "missed: tok64-1M, float16: at most 256 MiB" in summary.table([record], 0)
    met = record | {"rows": targets.judged(CASES["tok64-1M"], [row()])}
    assert summary.exit_code([met], 0) == summary.PASSED
    assert summary.exit_code([record], 2) == summary.UNFINISHED
    assert summary.exit_code([met | {"status": "failed"}], 0) == summary.FAILED


# races


def raced(name: str, tmp_path, **rest) -> list[dict]:
    return race.race(CASES[name].tiny(), DryCard(), tmp_path / "mark", rounds=1, dry=True, **rest)


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_with_plain_operations(name, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "PEERS", ())
    rows = raced(name, tmp_path)
    case = CASES[name].tiny()
    assert len(rows) == len(case.codecs) * len(case.read_tokens) * len(case.ks)
    for each in rows:
        assert "failed" not in each
        assert each["error_decoded"] < OURS_DECODED
        assert each["recall"] == 1.0
        assert each["of_floor"] > 0
        assert each["dry_run"] == DRY
        assert ("graph_ms" in each) == case.replayed
    json.dumps(rows)


class _Module:
    def __init__(self, *peers: GpuPeer) -> None:
        self.PEERS = peers


def _peer(name: str, scores) -> GpuPeer:
    return GpuPeer(name, "a-package", "float16", "", lambda given, r_c: ScoreEntry(given, lambda: scores(given)))


def test_a_peer_that_raises_or_is_wrong_or_missing_becomes_a_row(tmp_path, monkeypatch):
    from benchmarks.gpu.peers.torch_chunks import _scan

    def right(given):
        return _scan(given, given.case.doc_tokens, True, (1 << 20, True))

    def breaks(given):
        raise RuntimeError("out of resources: shared memory")

    peers = (_peer("right", right), _peer("breaks", breaks), _peer("wrong", lambda given: right(given) + 1))
    monkeypatch.setitem(sys.modules, "peers_of_a_test", _Module(*peers))
    monkeypatch.setattr(race, "PEERS", ("peers_of_a_test", "no_such_module_of_this_name"))
    rows = {each["contestant"]: each for each in raced("tok64-1M", tmp_path)}
    assert rows["right"]["best_peer"] == "right"
    assert rows["breaks"]["failed"] == "RuntimeError: out of resources: shared memory"
    assert rows["wrong"]["failed"].startswith("wrong: error")
    assert "median_ms" not in rows["wrong"]
    assert "ModuleNotFoundError" in rows["no_such_module_of_this_name"]["failed"]
    assert "peer_ratio" in rows["metaindex plain int8"]
    assert runner.by_rows(done(rows=list(rows.values()))).ok  # others' failures are results


def test_a_missing_scorer_of_ours_fails_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(race, "PEERS", ())
    monkeypatch.setattr("benchmarks.gpu.ours.BACKENDS", {"new": ("metaindex.scoring.no_such_scorer", "NewScorer")})
    rows = race.race(CASES["me-1-1"].tiny(), DryCard(), tmp_path / "mark", rounds=1)
    assert all("ModuleNotFoundError" in each["failed"] for each in rows)
    assert "metaindex new float16: ModuleNotFoundError" in runner.by_rows(done(rows=rows)).why


def test_both_ways_to_scan_are_raced(monkeypatch):
    raced = {one.name: one for one in ours.ours(CASES["tok64-100k-q64"], dry=False)}
    assert {f"metaindex {name} int8" for name in ("triton", "cuda", "cuda:portable", "cuda:sm90")} <= set(raced)
    sm90, portable = raced["metaindex cuda:sm90 int8"], raced["metaindex cuda:portable int8"]
    for capability, case, sm90_stays, portable_stays in (
        (90, "tok64-100k-q64", "what the backend without a path takes: path=sm90", None),
        (90, "tok64-1M", None, "what the backend without a path takes: path=stream"),
        (80, "tok64-100k-q64", "wgmma is only in", "what the backend without a path takes: path=tile"),
        (90, "rerank-1", "there is one way to gather", "there is one way to gather"),
    ):
        monkeypatch.setattr(ours.core, "cuda_cards", lambda capability=capability: [(capability, 132, 163 << 10)])
        for one, stays in ((sm90, sm90_stays), (portable, portable_stays)):
            why = one.why_not(CASES[case])
            assert (why or "").startswith(stays or ""), (one.name, case, why)
            assert (why is None) == (stays is None), (one.name, case, why)
    made = ours.scorer("cuda:sm90", Residency("cpu"))
    assert (made.name, made.operations.path) == ("cuda:sm90", "sm90")


def test_excluded_contestants_keep_their_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(race, "PEERS", ())
    rows = raced("me-1-1", tmp_path, excluded={"metaindex plain int8": "ended the process: SIGSEGV"})
    assert {each["contestant"]: each.get("failed") for each in rows} == {
        "metaindex plain float16": None,
        "metaindex plain int8": "ended the process: SIGSEGV",
    }


def test_who_fails_only_as_a_graph_keeps_its_other_times(tmp_path, monkeypatch):
    class Capturing(DryCard):
        usable = True

        def replay(self, call):
            self.usable = False
            raise RuntimeError("not permitted while a stream is capturing")

        def healthy(self):
            return self.usable

    monkeypatch.setattr(race, "PEERS", ())
    excluded: dict[str, str] = {}
    case, mark = CASES["rerank-1"].tiny(), tmp_path / "mark"
    for codec in case.codecs:
        with pytest.raises(race.PoisonedError):
            race.race(case, Capturing(), mark, rounds=1, dry=True, excluded=excluded)
        assert mark.read_text() == f"the graph of metaindex plain {codec}"
        excluded[mark.read_text()] = "left the device unusable"
    for each in race.race(case, Capturing(), mark, rounds=1, dry=True, excluded=excluded):
        assert each["median_ms"] > 0
        assert each["graph_failed"] == "left the device unusable"
        assert "graph_ms" not in each


def test_a_graph_that_does_nothing_has_no_time(tmp_path, monkeypatch):
    class Idle(DryCard):
        def replay(self, call):
            held = call()
            return lambda: held

    monkeypatch.setattr(race, "PEERS", ())
    rows = race.race(CASES["rerank-1"].tiny(), Idle(), tmp_path / "mark", rounds=1, dry=True)
    assert "as a graph: wrong" in runner.by_rows(done(rows=rows)).why
    for each in rows:
        assert each["graph_failed"].startswith("wrong")
        assert "graph_ms" not in each


def test_the_oracle_sees_missed_rows_wrong_scores_and_repeats():
    case = dataclasses.replace(CASES["tok64-1M"].tiny(), documents=300)
    given = problem.make(case, 3, torch.device("cpu"))
    truths = [problem.exact(query, lambda rows: given.documents[rows], torch.arange(300)) for query in given.queries]
    whole = torch.stack(truths).float()
    assert problem.errors(given, problem.Answer(whole, None), 4, None).original < 1e-6
    scores, rows = whole.topk(20)
    best = problem.Answer(scores, rows)
    assert problem.errors(given, best, 4, k=20).recall == 1.0
    assert 0 in rows
    assert 299 in rows  # planted, so that high addresses matter
    without_last = whole.clone()
    without_last[:, 299] = -9
    missed = problem.errors(given, problem.Answer(*without_last.topk(20)), 4, k=20)
    assert missed.recall < 1.0
    assert missed.original < 1e-6
    assert problem.errors(given, problem.Answer(scores + 0.1, rows), 4, k=20).original > 0.01
    twice = problem.Answer(scores[:, [0, 0, *range(2, 20)]], rows[:, [0, 0, *range(2, 20)]])
    assert problem.errors(given, twice, 4, k=20).recall == 0.0
    assert problem.errors(given, problem.Answer(whole * torch.nan, None), 4).original == float("inf")
    with pytest.raises(ValueError, match="19 documents"):
        problem.errors(given, problem.Answer(scores[:, 1:], rows[:, 1:]), 4, k=20)


def test_packing_in_parts_is_packing():
    documents = torch.arange(24.0).view(4, 2, 3)
    doubled, sums = in_parts(lambda part: (2 * part, part.sum(-1)), documents, size=6)
    assert (doubled == 2 * documents).all()
    assert (sums == documents.sum(-1)).all()


# outputs


def test_the_papers_table_stands_beside_its_caveat():
    times = [row(case=paper.name((1, 1), 1)), row(median=64.0, case=paper.name((1, 1), 64))]
    for each, queries in zip(times, (1, 64)):
        each["shape"] = {"queries": queries}
    text = "\n".join(paper.table(times))
    assert "7.3 TB/s" in text
    assert "| (1,1) | 0.71 | 0.67 | 1.67 | 1.000 |  | 1.000 |  |  |  |" in text
    assert all(f"({r_q},{r_c})" in text for r_q, r_c in PAPER)
    assert list(paper.table([row()])) == []


def test_wheels_that_would_replace_torch_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="no wheels"):
        wheelhouse.install(tmp_path)
    (tmp_path / "torch-2.13.0-py3-none-any.whl").touch()
    with pytest.raises(SystemExit, match="would replace"):
        wheelhouse.install(tmp_path)


def test_the_dry_run_from_end_to_end(tmp_path, capsys):
    dry = ["--dry-run", "--state", str(tmp_path / "state"), "--out", str(tmp_path / "out"), "--rounds", "1"]
    chosen = ["--only", "machine", "wheelhouse", "memcheck", "roofs", "entries", "race-budget"]
    code = main([*dry, *chosen, "--contestants", "float16"])
    text = capsys.readouterr().out
    state = State(tmp_path / "state")
    assert [state[name]["status"] for name in ("machine", "roofs", "entries", "race-budget")] == ["passed"] * 4
    assert state["wheelhouse"]["why"].startswith("would run: python -m benchmarks.gpu.wheelhouse install")
    assert state["memcheck"]["status"] in ("skipped", "shown")
    assert state["memcheck"]["why"] in text  # a skip has its reason printed
    assert code == summary.FAILED  # plain Python misses what is aimed at
    assert "missed: budget" in text
    assert DRY in text
    files = sorted(path.name.partition("no-gpu")[2] for path in (tmp_path / "out").iterdir() if "no-gpu" in path.name)
    assert {".jsonl", ".md"} <= set(files)
    assert len(files) <= 8
    (lines,) = (tmp_path / "out").glob("*.jsonl")
    assert all(json.loads(line)["dry_run"] == DRY for line in lines.read_text().splitlines())
    assert DRY in lines.with_suffix(".md").read_text()

    assert main([*dry, *chosen, "--contestants", "float16"]) == code  # again: nothing runs
    assert "passed after" not in capsys.readouterr().out

    other = State(tmp_path / "other")  # a machine that only has what the first one sent back
    assert outputs.restore(lines, other) == len(chosen) - 1
    assert report.render(other.records(STEPS), 0, []) == report.render(state.records(STEPS), 0, [])
    assert outputs.restore(lines, other) == 0


def test_a_dry_run_never_writes_where_measurements_are():
    with pytest.raises(SystemExit):
        main(["--dry-run", "--out", str(RESULTS)])


def test_without_a_gpu_the_reason_is_said(tmp_path, capsys):
    if gpus():
        pytest.skip("this machine has a GPU")
    assert main(["--state", str(tmp_path / "state"), "--out", str(tmp_path / "out")]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert main(["--list", "--state", str(tmp_path / "state")]) == 0
    assert "race-me-16-64-q64" in capsys.readouterr().out
