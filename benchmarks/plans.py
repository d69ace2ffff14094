"""Plans beside the exact search: ``python -m benchmarks plans``. What tuned ones find, read and take, on synthetic nested
vectors and on the docstrings of Python's standard library. See README.md."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.docstrings import docstring_vectors
from benchmarks.measures import Measures, render, write
from metaindex import MetaIndex, nest
from metaindex.bench.calibrate import calibrate
from metaindex.bench.machine import run_record
from metaindex.bench.stage_times import WITHIN
from metaindex.bench.synthetic import NestedVectors
from metaindex.evaluation import ndcg_at_k, recall_at_k
from metaindex.evaluation.metrics import TIE
from metaindex.execution import calibration
from metaindex.timing import Timing, interleave
from metaindex.tuning import Tuning

PACKAGES = ("metaindex", "numpy", "faiss-cpu")
CODEC, THREADS, K = "int8", 2, 10
DOC_TOKENS, DIM, QUERY_TOKENS = 64, 128, 16
RECALL = 0.99
ASKED = 0.995  # a plan that just reaches a recall on held-out queries falls short of it on half of all other samples
_AMONG = 1 << 16  # documents that queries are about; making the vectors of more for them would take as long as the index
_PLANS_TIMED = 20  # queries


@dataclass(frozen=True)
class Size:
    """A synthetic case. ``difficulties``: by trial, such that at 1,000,000 documents "main" is as the targets say; of fewer,
    lists of 1,000 hold more. ``seconds``: that a tuning may take."""

    documents: int
    coarse: str
    lists: int
    ms: float
    seconds: dict[str, float]
    difficulties: dict[str, float] = field(default_factory=lambda: {"main": 0.5, "easy": 0.4, "hard": 0.6})
    tuned: int = 1024  # queries, half of which train
    evaluated: int = 200

    def quick(self) -> Size:
        """A hundredth of it: shows that everything runs, measures nothing to keep."""
        return replace(
            self, documents=self.documents // 100, coarse="IVF16,Flat", lists=16, tuned=100, evaluated=20,
            seconds=dict.fromkeys(self.seconds, 15.0),
        )  # fmt: skip


SIZES = {
    "100k": Size(100_000, "IVF512,Flat", 512, 3.0, {"main": 120.0, "easy": 90.0, "hard": 90.0}),
    "1m": Size(1_000_000, "IVF1024,Flat", 1024, 15.0, {"main": 360.0, "easy": 200.0, "hard": 200.0}),
}


@dataclass(kw_only=True)
class Bench(Measures):
    seed: int
    rounds: int
    quick: bool
    docstrings: int | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What single queries by one plan found: ``ids`` [B, k]; document bytes, and the seconds of each stage as predicted and as
    measured."""

    ids: NDArray[np.int64]
    nbytes: float
    stages: list[dict[str, Any]]


def searched(index: MetaIndex, queries: Sequence[NDArray], plan: str) -> Found:
    results = [index.search(query, K, plan=plan) for query in queries]
    stages = []
    for runs in zip(*(result.stats for result in results)):
        measured = float(np.median([run.seconds for run in runs]))
        predicted = [run.predicted for run in runs if run.predicted is not None]
        stages.append(
            {
                "stage": runs[0].stage,
                "plan": plan,
                "measured": measured,
                "predicted": float(np.median(predicted)) if predicted else None,
            }
        )
    nbytes = float(np.mean([sum(stage.bytes for stage in result.stats) for result in results]))
    return Found(np.concatenate([np.asarray(result.ids) for result in results]), nbytes, stages)


def synthetic(bench: Bench, case: str, difficulty: str) -> None:
    """One size and difficulty: how hard it is, what the exact search takes, what tuned plans do."""
    size = SIZES[case].quick() if bench.quick else SIZES[case]
    vectors = NestedVectors(size.documents, DOC_TOKENS, DIM, bench.seed, size.difficulties[difficulty])
    asked, _ = vectors.queries(size.tuned + size.evaluated, QUERY_TOKENS, _AMONG)
    tuned, others = asked[: size.tuned], asked[size.tuned :]
    index = MetaIndex(codec=CODEC, nested=True, coarse=size.coarse, num_threads=THREADS, device="cpu")
    index.add(vectors.batches(THREADS))
    index.compact()
    best = np.asarray(index.search(others, K, plan="(*,*)").scores)

    def row(what: str, unit: str, runs: Sequence[float], **more: Any) -> None:
        bench.row(case, f"{difficulty}: {what}", unit, runs, part=difficulty, difficulty=size.difficulties[difficulty], **more)

    def recall(ids: NDArray[np.int64]) -> float:
        tie = TIE * float(np.abs(best).max())
        return float(recall_at_k(index.score(others, ids), best, K, tolerance=tie).mean())

    targets = difficulty == "main"
    hard = targets and case == "1m" and not bench.quick
    row(
        "(1,1) alone, recall@10",
        "of it",
        [recall(searched(index, others, "(1,1)").ids)],
        **({"least": 0.4, "most": 0.6} if hard else {}),
    )
    kept = recall(searched(index, others, "(1,1)>1000 (*,*)").ids)
    row("the first 1,000 of (1,1), recall@10", "of it", [kept], **({"most": 0.9} if hard else {}))

    rescored = [f"coarse(nprobe={size.lists // part})>{keep} (*,*)" for part in (16, 2) for keep in (1000, 10_000)]
    rescored = [plan for plan in rescored if not bench.quick]
    tuning = index.tune(tuned, K, ASKED, plans=rescored, seconds=size.seconds[difficulty], seed=bench.seed)
    print(tuning, file=sys.stderr, flush=True)
    chosen = {"tuned": str(tuning.plan)} | _best_coarse(tuning)
    timings = timed(index, others, {"exact": "(*,*)"} | chosen, bench.rounds)
    exact = searched(index, others[:_PLANS_TIMED], "(*,*)")
    row("exact, median", "ms", _milliseconds(timings["exact"]), plan="(*,*)")
    row("exact, read per query", "MB", [exact.nbytes / 1e6], plan="(*,*)")
    stages = exact.stages
    for name, plan in chosen.items():
        found = searched(index, others, plan)
        stages += found.stages
        only = targets and name == "tuned"
        about = {"plan": plan, "frontier": tuning.rows()}
        row(f"{name}, {plan}, recall@10", "of it", [recall(found.ids)], least=RECALL if only else 0, **about)
        row(f"{name}, median", "ms", _milliseconds(timings[name]), most=size.ms if only else 0, plan=plan)
        row(f"{name}, read per query", "MB", [found.nbytes / 1e6], plan=plan)
    for run in tuning.frontier:
        if str(run.plan) not in chosen.values() and not run.exact:
            stages += searched(index, others[:_PLANS_TIMED], str(run.plan)).stages
    within(row, stages)


def _best_coarse(tuning: Tuning) -> dict[str, str]:
    """The cheapest plan with a coarse stage that reaches the target, else the best; none where one was chosen anyway."""
    runs = [run for run in tuning.runs if run.plan.coarse is not None]
    if not runs or tuning.plan.coarse is not None:
        return {}
    reaching = [run for run in runs if run.quality >= tuning.target]
    chosen = min(reaching, key=lambda run: run.ms) if reaching else max(runs, key=lambda run: run.quality)
    return {"with a coarse stage": str(chosen.plan)}


def timed(index: MetaIndex, queries: Sequence[NDArray], plans: dict[str, str], rounds: int) -> dict[str, Timing]:
    """Single queries by each plan, in turns."""

    def call(plan: str) -> Callable[[], object]:
        upcoming = cycle(queries)
        return lambda: index.search(next(upcoming), K, plan=plan)

    return interleave({name: call(plan) for name, plan in plans.items()}, rounds=rounds)


def within(row: Callable[..., None], stages: Sequence[dict[str, Any]]) -> None:
    """How many stages took what was predicted, within a factor; those of FAISS are not predicted."""
    told = [stage for stage in stages if stage["predicted"]]
    if told:
        good = [abs(math.log(stage["predicted"] / stage["measured"])) <= math.log(WITHIN) for stage in told]
        row(f"stages predicted within a factor of {WITHIN}", f"of {len(told)}", [sum(good) / len(told)], least=0.9, stages=told)


def _milliseconds(timing: Timing) -> list[float]:
    return [1e3 * seconds for seconds in timing.seconds]


def docstrings(bench: Bench, case: str, part: str) -> None:
    """Real text: the bytes that keep the exact search's nDCG."""
    tokens, summaries = docstring_vectors(bench.quick)
    bodies = nest(tokens, DOC_TOKENS)
    index = MetaIndex(codec=CODEC, nested=True, num_threads=THREADS, device="cpu")
    index.add(bodies)
    order = np.random.default_rng(bench.seed).permutation(len(bodies)).tolist()
    tuned, others = order[: len(order) // 2], order[len(order) // 2 :]

    def row(what: str, unit: str, runs: Sequence[float], **more: Any) -> None:
        bench.row(case, what, unit, runs, part=part, documents=len(bodies), **more)

    def asked(places: Sequence[int]) -> list[NDArray[np.float32]]:
        return [summaries[place] for place in places]

    def ndcg(ids: NDArray[np.int64]) -> float:
        return float(ndcg_at_k(ids.tolist(), [{place: 1.0} for place in others], K).mean())

    qrels = [{place: 1.0} for place in tuned]
    tuning = index.tune(asked(tuned), K, ASKED, "bytes", qrels=qrels, seconds=15 if bench.quick else 60, seed=bench.seed)
    print(tuning, file=sys.stderr, flush=True)
    plans = {"exact": "(*,*)", "tuned": str(tuning.plan)}
    found = {name: searched(index, asked(others), plan) for name, plan in plans.items()}
    timings = timed(index, asked(others), plans, bench.rounds)
    for name, plan in plans.items():
        row(f"{name}, {plan}, nDCG@10", "", [ndcg(found[name].ids)], plan=plan)
        row(f"{name}, read per query", "MB", [found[name].nbytes / 1e6], plan=plan)
        row(f"{name}, median", "ms", _milliseconds(timings[name]), plan=plan)
    share = ndcg(found["tuned"].ids) / ndcg(found["exact"].ids)
    row("tuned, share of the exact nDCG@10", "of it", [share], least=RECALL, frontier=tuning.rows())
    row("tuned, share of the exact bytes", "of it", [found["tuned"].nbytes / found["exact"].nbytes], most=0.1)
    within(row, found["exact"].stages + found["tuned"].stages)


CASES: dict[str, tuple[Callable[[Bench, str, str], None], tuple[str, ...]]] = {
    "100k": (synthetic, ("main", "easy", "hard")),
    "1m": (synthetic, ("main", "easy", "hard")),
    "docstrings": (docstrings, ("all",)),
}


def main(arguments: Sequence[str], results: Callable[[dict[str, Any]], Path], repository: Path) -> int:
    """Run the chosen cases that are not in the file yet which ``results`` names for a run's record; print and write a table."""
    options = _options(arguments)
    record = run_record(PACKAGES, repository=repository, seed=options.seed)
    out = options.out or (None if options.quick else results(record))
    done = _kept(out, record["commit"]) if out is not None and not options.redo else []
    kept = {(row["case"], row["part"]) for row in done}
    waiting = [(case, part) for case in options.cases or list(CASES) for part in CASES[case][1] if (case, part) not in kept]
    if options.parts:
        waiting = [(case, part) for case, part in waiting if part in options.parts]
    if waiting and not (options.uncalibrated or options.quick):
        print("calibrating", file=sys.stderr, flush=True)
        calibration.save({("cpu", CODEC): calibrate(CODEC, THREADS)})
    for case, part in waiting:
        print(f"{case}, {part}", file=sys.stderr, flush=True)
        bench = Bench(seed=options.seed, rounds=options.rounds, quick=options.quick)
        CASES[case][0](bench, case, part)
        done += [row | {"quick": options.quick, "run": record} for row in bench.rows]
        if out is not None:  # what is done is kept, whatever becomes of the next
            write(out, done, _rendered(done))
    if done:
        print(_rendered(done))
    if out is not None:
        print(f"wrote {out} and {out.with_suffix('.md')}", file=sys.stderr)
    return 0


def _kept(out: Path, commit: str | None) -> list[dict[str, Any]]:
    """The rows of an earlier run of this commit."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return [row for row in rows if row["run"]["commit"] == commit]


def _rendered(rows: Sequence[dict[str, Any]]) -> str:
    return render("Plans", rows, f"{CODEC}, {THREADS} threads, k = {K}; ")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks plans", description="What tuned plans find and take beside the exact search."
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="all by default")
    parser.add_argument("--parts", nargs="+", choices=("main", "easy", "hard", "all"), help="difficulties; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a hundredth of it, not calibrated; writes no results unless --out is given"
    )
    parser.add_argument("--redo", action="store_true", help="run again what the file of this commit has already")
    parser.add_argument("--uncalibrated", action="store_true", help="take the machine's calibration as it is")
    parser.add_argument("--out", type=Path, help="JSON lines; by default benchmarks/results/<date>-<machine>-plans.jsonl")
    return parser.parse_args(arguments)
