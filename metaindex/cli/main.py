"""The ``metaindex`` command: one parser, one place where errors become one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import metaindex
from metaindex.cli import bench, demo, doctor, store
from metaindex.errors import MetaIndexError

FAILED, USAGE = 1, 2


def parser() -> argparse.ArgumentParser:
    about = "Search by many vectors per document, at the budget you choose."
    top = argparse.ArgumentParser(prog="metaindex", description=about)
    top.add_argument("--version", action="version", version=f"metaindex {metaindex.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (demo, store, bench, doctor):
        module.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed) or 2 (usage)."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (MetaIndexError, ValueError, TypeError, OSError, MemoryError) as error:
        print(f"metaindex: {_one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("metaindex: interrupted", file=sys.stderr)
        return FAILED


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
