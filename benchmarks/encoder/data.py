"""Pairs to train on: the docstrings of other packages, summaries and the bodies they stand above.

``python -m benchmarks encoder FOLDER --steps data`` downloads the wheels of packages.txt with pip and reads the Python files in
them, none of which is run. What nearly repeats a docstring of the running Python's standard library, on which the encoder is
measured, is left out, and so is what nearly repeats a held-out package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.encoder.near import Known
from metaindex.bench.docstrings import Entry, collect

PACKAGES = Path(__file__).with_name("packages.txt")
# Whole packages, none of whose text is learned from: what recipes are compared on.
HELD_OUT = frozenset({"anytree", "boltons", "more_itertools", "portalocker", "rich", "sortedcontainers", "werkzeug"})


def make(output: Path, wheels: Sequence[Path]) -> None:
    """Write ``train.jsonl`` and ``held_out.jsonl`` below ``output``, of the packages in the folders ``wheels``.

    Where both are there they stay.

    Lines are in the order of packages, files and lines, so that lines that follow each other are about like things.
    """
    train, held = output / "train.jsonl", output / "held_out.jsonl"
    if train.exists() and held.exists():
        return
    names = [line for line in PACKAGES.read_text().splitlines() if not line.startswith("#")]
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        if not wheels:
            _download(names, Path(downloads))
            wheels = [Path(downloads)]
        found = {name: _wheel(name, wheels) for name in names}
        entries = {name: _entries(path) for name, path in tqdm(found.items(), unit="package")}
    held_out = [entry for name in names if _package(name) in HELD_OUT for entry in entries[name]]
    measured = collect()
    held_out, near = _apart(held_out, measured)
    print(f"{len(held_out):,} held out; {near:,} too near to the standard library left out")
    rest = [entry for name in names if _package(name) not in HELD_OUT for entry in entries[name]]
    rest, near = _apart(_unlike(rest), [*measured, *held_out])
    print(f"{len(rest):,} to learn from; {near:,} too near to the standard library or to what is held out left out")
    _write(train, rest)
    _write(held, held_out)


def _download(names: Sequence[str], folder: Path) -> None:
    print(f"downloading {len(names)} packages", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    subprocess.run([*command, *names], check=True)


def _package(requirement: str) -> str:
    return requirement.partition("==")[0].lower().replace("-", "_")


def _wheel(requirement: str, folders: Sequence[Path]) -> Path:
    name, _, version = requirement.partition("==")
    for folder in folders:
        for path in sorted(folder.glob("*.whl")):
            parts = path.name.split("-")
            if _package(parts[0]) == _package(name) and parts[1].partition("+")[0] == version:
                return path
    raise SystemExit(f"{requirement}: no wheel of it in {', '.join(map(str, folders))}")


def _entries(wheel: Path) -> list[Entry]:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder, [name for name in packed.namelist() if name.endswith(".py")])
        return collect(Path(folder))


def _unlike(entries: Sequence[Entry]) -> list[Entry]:
    """Without summaries that many share, which ask for nothing, and bodies that stand there already."""
    summaries = Counter(entry.summary for entry in entries)
    bodies: set[str] = set()
    kept = []
    for entry in entries:
        if summaries[entry.summary] == 1 and entry.body not in bodies:
            bodies.add(entry.body)
            kept.append(entry)
    return kept


def _apart(entries: Sequence[Entry], from_: Sequence[Entry]) -> tuple[list[Entry], int]:
    bodies, summaries = Known([each.body for each in from_]), Known([each.summary for each in from_])
    kept = [entry for entry in tqdm(entries, unit="pair") if not _near(entry, bodies, summaries)]
    return kept, len(entries) - len(kept)


def _near(entry: Entry, bodies: Known, summaries: Known) -> bool:
    return bodies.has_like(entry.body) or summaries.has_like(entry.summary)


def _write(path: Path, entries: Sequence[Entry]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"query": entry.summary, "positive": entry.body}) + "\n" for entry in entries)
