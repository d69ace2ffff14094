"""Committed tables of what kernels take, held against what a compiler makes of them now."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path


def options(description: str, record: Path, only: str) -> argparse.Namespace:
    """The options of a check that holds the table ``record``: ``update`` and ``only``, part of what ``only`` says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--update", action="store_true", help=f"write {record.name} anew")
    parser.add_argument("--only", default="", metavar="NAME", help=only)
    found = parser.parse_args()
    if found.update and found.only:
        parser.error("--update writes the whole table: leave --only out")
    return found


class Resources:
    """The table in ``path``, made with one version of a compiler.

    With that version every difference is a failure; with another, or while the table is written anew, differences are shown
    and only faults fail.

    Args:
        compiler, version: whose numbers these are.
        update: write the table anew.
    """

    def __init__(self, path: Path, compiler: str, version: str, *, update: bool = False) -> None:
        record = json.loads(path.read_text()) if path.exists() else {}
        self._path, self._compiler, self._version, self._update = path, compiler, version, update
        self._known: dict[str, dict[str, int]] = record.get("kernels", {})
        self._made_with = record.get(compiler)
        self._found: dict[str, dict[str, int]] = {}
        self._failures = 0

    @property
    def _binding(self) -> bool:
        return self._made_with == self._version and not self._update

    def add(self, name: str, takes: dict[str, int], faults: Iterable[str] = (), note: str = "") -> None:
        """What kernel ``name`` takes, and what is wrong with it whatever the table says; both are printed."""
        self._found[name] = takes
        remarks = list(faults)
        failed = bool(remarks)
        if self._known.get(name) != takes:
            remarks.append(f"was {self._known.get(name)}")
            failed |= self._binding
        self._failures += failed
        numbers = " ".join(f"{value:6} {what}" for what, value in takes.items())
        print(f"{numbers} {note} {name}", *(f"<- {remark}" for remark in remarks), flush=True)

    def fail(self, name: str, why: str) -> None:
        """A kernel, or a file of them, of which nothing is known."""
        self._failures += 1
        print(f"FAILED {name}: {why}", flush=True)

    def close(self, *, partial: bool = False) -> int:
        """The exit code. ``partial``: not all kernels were looked at."""
        if self._update:
            table = {self._compiler: self._version, "kernels": self._found}
            self._path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        elif not partial:
            for name in sorted(self._known.keys() - self._found.keys()):
                print(f"{name} stands in {self._path.name} and is gone")
                self._failures += self._binding
        if not self._binding and not self._update:
            print(
                f"{self._compiler} {self._version} is not {self._made_with}, which {self._path.name} was made with: "
                "differences are shown, and only spills and other faults fail"
            )
        print(f"{len(self._found)} kernels, {self._failures} failures")
        return 1 if self._failures else 0
