"""What the processes of measuring steps have in common: options, and rows that go to the file ``rows.json`` of a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import DRY

Rows = list[dict[str, Any]]


def child(about: str | None, rows: Callable[[argparse.Namespace], Rows], *arguments: tuple[str, dict[str, Any]]) -> int:
    """Run ``rows`` with ``--folder``, ``--dry-run`` and ``arguments``. Exit code 1 where a row has the key "failed"."""
    parser = argparse.ArgumentParser(description=about)
    for name, settings in arguments:
        parser.add_argument(name, **settings)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--folder", type=Path, help="where rows.json goes; else it is printed")
    options = parser.parse_args()
    found = rows(options)
    if options.dry_run:
        found = [row | {"dry_run": DRY} for row in found]
    text = json.dumps(found)
    if options.folder is None:
        print(text)
    else:
        (options.folder / "rows.json").write_text(text)
    for row in found:
        if "failed" in row:
            print(f"failed: {row['failed']}")
    return 1 if any("failed" in row for row in found) else 0
