"""The race of engines: each built alone in a process of its own, then all of their settings in turns on the same queries."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measures import write
from metaindex import MetaIndex
from metaindex.bench.machine import run_record
from metaindex.bench.sweep import TIE
from metaindex.bench.synthetic import NestedVectors
from metaindex.evaluation import recall_at_k

ENGINES = {
    "metaindex": "benchmarks.engines.ours",
    "Qdrant Edge": "benchmarks.engines.qdrant",
    "LanceDB": "benchmarks.engines.lance",
    "FAISS tokens": "benchmarks.engines.faiss_tokens",
    "fast-plaid": "benchmarks.engines.plaid",
}
PACKAGES = ("metaindex", "numpy")
K = 10
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
_TURN_SECONDS = 2.0


class Worker:
    """An engine's process, and what it told."""

    def __init__(self, name: str, module: str, python: str, folder: Path, threads: int, repository: Path) -> None:
        self.name, self.module = name, module
        environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        command = [python, "-m", "benchmarks.engines.worker", module, str(folder), str(threads)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=repository, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.built = self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"failed": f"its process ended with exit code {self._process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def search(self, setting: str, first: int, last: int) -> dict[str, Any]:
        """Search the queries [first, last): ``seconds`` and ``ids`` of each, or ``failed``."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"setting": setting, "first": first, "last": last, "k": K}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return {"failed": "its process has ended"}
        return self._heard()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def race(workers: Sequence[Worker], queries: int, rounds: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Seconds and ids by engine and setting. A turn is as many queries as fit in it, so slow settings see fewer of them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    plan: list[tuple[Worker, str, int]] = []
    for worker in workers:
        for setting in worker.built.get("settings", ()):
            tried = worker.search(setting, 0, 1)
            key = (worker.name, setting)
            found[key] = {"seconds": [], "ids": {}} if "failed" not in tried else tried
            if "failed" not in tried:
                again = worker.search(setting, 0, 1)["seconds"][0]
                plan.append((worker, setting, max(1, min(queries, int(_TURN_SECONDS / again)))))
    for number in range(rounds):
        shift = number % max(1, len(plan))
        for worker, setting, count in plan[shift:] + plan[:shift]:
            first = number * count % queries
            last = min(first + count, queries)
            answer = worker.search(setting, first, last)
            key = (worker.name, setting)
            if "failed" in answer:
                found[key] = answer
            elif "failed" not in found[key]:
                found[key]["seconds"] += answer["seconds"]
                found[key]["ids"] |= dict(zip(range(first, last), answer["ids"]))
                found[key]["memory"] = answer["memory"]
    return found


def recall(truth: MetaIndex, best: NDArray[np.float32], queries: NDArray, ids: dict[int, list[int]]) -> float:
    """The share of the exact k best that was found, by score."""
    asked = sorted(ids)
    tie = TIE * float(np.abs(best).max())
    return float(recall_at_k(truth.score(queries[asked], [ids[each] for each in asked]), best[asked], K, tolerance=tie).mean())


def main(arguments: Sequence[str], results: Callable[[dict[str, Any]], Path], repository: Path) -> int:
    """Run the race, print its table and write it with its rows to the file that ``results`` names for a run's record."""
    options = _options(arguments)
    vectors = NestedVectors(options.documents, options.doc_tokens, options.dim, options.seed, options.difficulty)
    record = run_record(PACKAGES, repository=repository, seed=options.seed)
    pythons = dict(each.split("=", 1) for each in options.python)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="engines-", dir=options.folder) as name:
        folder = Path(name)
        asked, _ = vectors.queries(options.tuning + options.queries, options.query_tokens)
        queries = asked[options.tuning :]
        np.save(folder / "documents.npy", vectors.array())
        np.save(folder / "tuning.npy", asked[: options.tuning])
        np.save(folder / "queries.npy", queries)
        truth = MetaIndex(codec="float32", nested=True)
        truth.add(vectors.batches())
        best = np.asarray(truth.search(queries, K).scores)
        workers = []
        for engine in options.engines or list(ENGINES):
            print(f"{engine} builds", file=sys.stderr, flush=True)
            python = pythons.get(engine, sys.executable)
            workers.append(Worker(engine, ENGINES[engine], python, folder, options.threads, repository))
        found = race(workers, len(queries), options.rounds)
        for worker in workers:
            if "failed" in worker.built:
                rows.append({"engine": worker.name, "failed": worker.built["failed"]})
            for setting in worker.built.get("settings", ()):
                rows.append(_row(worker, setting, found[worker.name, setting], truth, best, queries))
            worker.close()
    for row in rows:
        row |= {"subject": vars(vectors) | {"k": K, "threads": options.threads}, "run": record}
        row["subject"].pop("_topics", None)
    text = render(rows)
    print(text)
    write(options.out or results(record), rows, text)
    return 0


def _row(
    worker: Worker, setting: str, found: dict[str, Any], truth: MetaIndex, best: NDArray[np.float32], queries: NDArray
) -> dict[str, Any]:
    row = {"engine": worker.name, "setting": setting, **{key: worker.built[key] for key in ("version", "disk")}}
    row["build_seconds"] = worker.built["seconds"]
    if "failed" in found:
        return {**row, "failed": found["failed"]}
    median = 1e3 * statistics.median(found["seconds"])
    measured = {"median_ms": median, "best_ms": 1e3 * min(found["seconds"]), "searches": len(found["seconds"])}
    return {**row, **measured, "recall": recall(truth, best, queries, found["ids"]), "memory": found["memory"]}


def render(rows: Sequence[dict[str, Any]]) -> str:
    run, subject = rows[0]["run"], rows[0]["subject"]
    lines = [
        f"# Engines: {run['machine']['cpu']}, {run['machine']['cores']} cores, {run['date'][:10]}",
        "",
        f"{subject['documents']:,} documents, {subject['doc_tokens']} x {subject['dim']}; difficulty {subject['difficulty']}; "
        f"top {subject['k']}, {subject['threads']} threads, one query at a time.",
        f"{run['machine']['os']}; commit {run['commit']}; seed {run['seed']}.",
        "",
        "*recall*: the share of the exact top k that was found, by score, against float32. *memory*: what the process grew by,",
        "from before the build to the end, mapped files that were touched counted in. *disk*: files left. Engines are built",
        "one after another, each alone; searches take turns.",
        "",
        "| engine | setting | recall | median ms | best ms | memory MiB | disk MiB | build s |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: (row["engine"] != "metaindex", row["engine"], row.get("median_ms", 0))):
        if "median_ms" not in row:
            continue
        label = f"**{row['engine']}** {row['version']}" if row["engine"] == "metaindex" else f"{row['engine']} {row['version']}"
        cells = [label, row["setting"], f"{row['recall']:.3f}", f"{row['median_ms']:.2f}", f"{row['best_ms']:.2f}"]
        cells += [f"{row['memory'] / 2**20:,.0f}", f"{row['disk'] / 2**20:,.0f}", f"{row['build_seconds']:,.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {row['engine']} {row.get('setting', '')}: {row['failed']}" for row in rows if "failed" in row)]
    return "\n".join(lines).rstrip() + "\n"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks engines", description="Whole engines on the same vectors.")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), help="all by default")
    parser.add_argument("--python", nargs="*", default=[], metavar="ENGINE=PATH", help="another interpreter for an engine")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--doc-tokens", type=int, default=64)
    parser.add_argument("--query-tokens", type=int, default=16)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--difficulty", type=float, default=0.45)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--tuning", type=int, default=200, help="queries that an engine may tune itself on, never measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")))
    parser.add_argument("--out", type=Path, help="JSON lines; by default benchmarks/results/<date>-<machine>-engines.jsonl")
    return parser.parse_args(arguments)
