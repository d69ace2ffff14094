"""A text corpus that every Python installation carries: the docstrings of its standard library.

An entry is a function, method or class, defined at the top of a module or in the body of a class there, whose docstring has
a summary (its first paragraph, mostly one line, as PEP 257 asks for), a blank line and a body. The summary asks, the body
answers: searching all bodies for a summary should find the entry's own. Sources are parsed, never imported, so collecting
runs no code of theirs.

What does not count: private names and private modules (a leading underscore, dunder methods included), the folders of tests,
of IDLE, lib2to3, the turtle demos and installed packages, and bodies of fewer than ``MIN_BODY_WORDS`` words. Where two entries
share a body, or a summary, only the first stays, for no search could tell them apart.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIN_BODY_WORDS = 5
SKIPPED_FOLDERS = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"})

_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Entry:
    """One documented name: ``id`` as in ``textwrap.TextWrapper.wrap``, its one-line ``summary`` and the ``body`` below."""

    id: str
    summary: str
    body: str


def collect(root: Path | None = None) -> list[Entry]:
    """The entries below ``root``, by default the standard library of the running Python, in the order of their paths and lines.

    Files that don't parse (the standard library keeps none outside its tests) are passed over.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    entries: list[Entry] = []
    summaries: set[str] = set()
    bodies: set[str] = set()
    for path in _sources(root):
        for entry in _entries(_parsed(path), _module_name(path.relative_to(root))):
            if entry.summary not in summaries and entry.body not in bodies:
                entries.append(entry)
                summaries.add(entry.summary)
                bodies.add(entry.body)
    return entries


def split_docstring(docstring: str) -> tuple[str, str] | None:
    """Summary, joined to one line, and body of a docstring with cleaned indentation; None where it lacks one of them."""
    summary, _, body = docstring.strip().partition("\n\n")
    if len(body.split()) < MIN_BODY_WORDS:
        return None
    return " ".join(summary.split()), body.strip()


def _sources(root: Path) -> list[Path]:
    kept = []
    for path in root.rglob("*.py"):
        *folders, name = path.relative_to(root).parts
        private = any(part.startswith("_") for part in (*folders, name)) and name != "__init__.py"
        if not private and SKIPPED_FOLDERS.isdisjoint(folders):
            kept.append(path)
    return sorted(kept)


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parsed(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's strings
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _entries(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Entry]:
    for node in scope.body:
        if not isinstance(node, _Definition) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        parts = split_docstring(ast.get_docstring(node) or "")
        if parts is not None:
            yield Entry(name, *parts)
        if isinstance(node, ast.ClassDef):
            yield from _entries(node, name)
