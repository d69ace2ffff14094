"""The storage race: ``python -m benchmarks storage``. What durable writing, opening, filtering and verifying cost, beside what
the disk itself can do in the same folder and the same minutes. See README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import disk
from benchmarks.measures import Measures, publish, render
from metaindex import MetaIndex
from metaindex.bench.machine import run_record

PACKAGES = ("metaindex", "numpy")
_MEMORY_ONLY = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Sizes:
    """How much is written, opened and filtered. ``documents`` of ``tokens`` x ``dim`` come in batches of ``batch``."""

    documents: int = 100_000
    tokens: int = 64
    dim: int = 128
    batch: int = 2048  # 16 million numbers, as the command line takes
    segments: int = 100
    segment_documents: int = 320  # 5 MiB, which no merge takes
    small_adds: int = 200
    filtered: int = 1_000_000
    kept_in: int = 100  # one in so many documents passes the filter
    opens: int = 20

    def quick(self) -> Sizes:
        """A hundredth of it: shows that everything runs, measures nothing to keep."""
        return replace(self, documents=1_500, segments=10, small_adds=10, filtered=10_000)


@dataclass(kw_only=True)
class Bench(Measures):
    """A run: where it writes, how large, how often, and the vectors that the cases share."""

    folder: Path
    sizes: Sizes
    rounds: int
    seed: int

    def vectors(self) -> NDArray[np.float16]:
        """The documents float16 [N, T, d], all at once, so that no case pays for making them."""
        sizes, random = self.sizes, np.random.default_rng(self.seed)
        out, started = np.empty((sizes.documents, sizes.tokens, sizes.dim), np.float16), time.perf_counter()
        for batch in _batches(out, sizes.batch):
            batch[...] = random.standard_normal(batch.shape, dtype=np.float32)
        print(f"  {out.nbytes / 1e9:.2f} GB of vectors made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        return out

    def place(self, name: str) -> Path:
        """A path in the bench's folder where nothing stands."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path


def add(bench: Bench) -> None:
    """100,000 documents added to a folder, in turns with one file of as many bytes"""
    vectors = bench.vectors()
    wide = vectors.astype(np.float32)
    contestants: dict[str, Callable[[], disk.Taken]] = {
        "disk": lambda: _timed_write(bench, vectors),
        "float16": lambda: _timed_add(bench, _batches(vectors, bench.sizes.batch)),
        "float32": lambda: _timed_add(bench, _batches(wide, bench.sizes.batch)),
    }
    taken = disk.in_turns(contestants, bench.rounds)
    rates = {name: [vectors.nbytes / one.seconds / 1e9 for one in runs] for name, runs in taken.items()}
    cpu = {name: [one.cpu for one in runs] for name, runs in taken.items()}
    bench.row("add", "disk, sequential write and fsync", "GB/s", rates["disk"], cpu_seconds=cpu["disk"])
    for name in ("float16", "float32"):
        bench.row("add", f"add, given {name}", "GB/s", rates[name], cpu_seconds=cpu[name])
        share = statistics.median(rates[name]) / statistics.median(rates["disk"])
        bench.row("add", f"add, given {name}, share of the disk's rate", "of it", [share], least=0.5)
    for name in ("raw", "index"):
        bench.place(name)


def _batches(vectors: NDArray, size: int) -> Iterator[NDArray]:
    return (vectors[start : start + size] for start in range(0, len(vectors), size))


def _timed_write(bench: Bench, array: NDArray) -> disk.Taken:
    path = bench.place("raw")
    return disk.timed(lambda: disk.write(path, array))


def _timed_add(bench: Bench, batches: Iterator[NDArray]) -> disk.Taken:
    with MetaIndex(path=bench.place("index"), codec="float16") as index:
        return disk.timed(lambda: index.add(batches))


def opening(bench: Bench) -> None:
    """an index of 100 segments, opened and closed"""
    sizes, path = bench.sizes, bench.place("segments")
    random = np.random.default_rng(bench.seed)
    batch = random.standard_normal((sizes.segment_documents, sizes.tokens, sizes.dim), dtype=np.float32)
    with MetaIndex(path=path, codec="float16") as index:
        index.add(batch for _ in range(sizes.segments))
    found = len(list((path / "segments").iterdir()))
    if found != sizes.segments:
        raise RuntimeError(f"expected {sizes.segments} segments, got {found}: segment_documents no longer keeps merges away")

    taken = [disk.timed(lambda: MetaIndex.open(path).close()) for _ in range(sizes.opens)]
    bench.row("open", f"open an index of {found} segments", "ms", _milliseconds(taken), most=50)
    bench.place("segments")


def small(bench: Bench) -> None:
    """one document at a time, each add durable when it returns"""
    sizes, path = bench.sizes, bench.place("small")
    documents = np.random.default_rng(bench.seed).standard_normal((sizes.small_adds, 1, sizes.tokens, sizes.dim))
    documents = documents.astype(np.float16)
    with MetaIndex(path=path, codec="float16") as index:
        ours = [disk.timed(partial(index.add, document)).seconds for document in documents]
    raw = [_timed_write(bench, document).seconds for document in documents]
    bench.row("small", "small durable adds", "per s", [len(ours) / sum(ours)], median_ms=1e3 * statistics.median(ours))
    bench.row("small", "disk, a file of as many bytes and fsync", "per s", [len(raw) / sum(raw)])
    for name in ("small", "raw"):
        bench.place(name)


def filtering(bench: Bench) -> None:
    """a filter that keeps 1 % of 1,000,000 documents, on a declared field"""
    sizes, path = bench.sizes, bench.place("filtered")
    random = np.random.default_rng(bench.seed)
    step = 50_000
    with MetaIndex(path=path, codec="int8", fields=["part"]) as index:
        for start in range(0, sizes.filtered, step):
            numbers = range(start, min(start + step, sizes.filtered))
            vectors = random.standard_normal((len(numbers), 2, 8), dtype=np.float32)
            index.add(vectors, metadata=[{"part": number % sizes.kept_in} for number in numbers])
    query = random.standard_normal((2, 8), dtype=np.float32)
    wanted = range(min(sizes.opens, sizes.kept_in))
    with MetaIndex.open(path) as index:
        index.search(query)  # maps what every search needs
        plain = [disk.timed(lambda: index.search(query)) for _ in wanted]
        first = [disk.timed(partial(index.search, query, filter={"part": part})) for part in wanted]
        again = [disk.timed(partial(index.search, query, filter={"part": part})) for part in wanted]
        found = index.search(query, filter={"part": 3}).ids
    if (found % sizes.kept_in != 3).any():
        raise RuntimeError(f"expected documents of part 3 only, got {found.tolist()}")
    bench.row("filter", "search without a filter", "ms", _milliseconds(plain))
    bench.row("filter", "search with a filter, first time", "ms", _milliseconds(first), most=50)
    bench.row("filter", "search with the same filter again", "ms", _milliseconds(again), most=5)
    bench.place("filtered")


def _milliseconds(taken: Sequence[disk.Taken]) -> list[float]:
    return [1e3 * one.seconds for one in taken]


def verifying(bench: Bench) -> None:
    """verify, in turns with reading the same files, neither from the page cache"""
    sizes, path = bench.sizes, bench.place("index")
    vectors = bench.vectors()
    with MetaIndex(path=path, codec="float16") as index:
        index.add(_batches(vectors, sizes.batch))
    del vectors
    files = [file for file in sorted(path.rglob("*")) if file.suffix == ".safetensors"]  # the catalog is SQLite's alone to open
    nbytes = sum(file.stat().st_size for file in files)
    verifications: list[Any] = []

    def verify() -> disk.Taken:
        disk.forget(files)
        with MetaIndex.open(path) as index:
            taken = disk.timed(lambda: verifications.append(index.verify()))
        if not verifications[-1].ok:
            raise RuntimeError(f"verify found damage in a fresh index: {verifications[-1]}")
        return taken

    def read() -> disk.Taken:
        disk.forget(files)
        return disk.timed(lambda: disk.read(files))

    for name, taken in disk.in_turns({"verify": verify, "disk, sequential read": read}, bench.rounds).items():
        rates = [nbytes / one.seconds / 1e9 for one in taken]
        bench.row("verify", name, "GB/s", rates, cpu_seconds=[one.cpu for one in taken])
    bench.place("index")


CASES: dict[str, Callable[[Bench], None]] = {
    "add": add,
    "open": opening,
    "small": small,
    "filter": filtering,
    "verify": verifying,
}


def main(arguments: Sequence[str], results: Callable[[dict[str, Any]], Path], repository: Path) -> int:
    """Run the chosen cases, print a table and write it with its rows to the file that ``results`` names for a run's record."""
    options = _options(arguments)
    filesystem = disk.filesystem(options.folder)
    if filesystem.split()[0] in _MEMORY_ONLY:
        raise SystemExit(f"--folder: expected a folder on a disk, got {options.folder} on {filesystem}")
    record = run_record(PACKAGES, repository=repository, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="storage-", dir=options.folder) as folder:
        sizes = Sizes().quick() if options.quick else Sizes()
        bench = Bench(folder=Path(folder), sizes=sizes, rounds=options.rounds, seed=options.seed)
        for name in options.cases or list(CASES):
            print(f"{name}: {CASES[name].__doc__}", file=sys.stderr, flush=True)
            CASES[name](bench)
    for row in bench.rows:
        row |= {"quick": options.quick, "filesystem": filesystem, "run": record}
    text = render("Storage", bench.rows, f"{filesystem}; ")
    publish(options.out or (None if options.quick else results(record)), bench.rows, text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks storage", description="What durable storage costs on this disk."
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="all by default")
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")), help="where to write; a disk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a hundredth of it; writes no results unless --out is given")
    parser.add_argument("--out", type=Path, help="JSON lines; by default benchmarks/results/<date>-<machine>-storage.jsonl")
    return parser.parse_args(arguments)
