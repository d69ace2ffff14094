"""The ``metaindex`` command: one parser, one place where errors become one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import metaindex
from metaindex.cli import bench, check, demo, doctor, store, train, tune, why, write
from metaindex.errors import MetaIndexError

FAILED = 1


def parser() -> argparse.ArgumentParser:
    about = "Search by many vectors per document, at the budget you choose."
    top = argparse.ArgumentParser(prog="metaindex", description=about)
    top.add_argument("--version", action="version", version=f"metaindex {metaindex.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (demo, write, store, why, tune, train, check, bench, doctor):
        module.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed) or 2 (usage)."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        print(end="", flush=True)  # what can't be written is to fail here, not when Python exits
        return code
    except BrokenPipeError:
        # Whoever read the output has seen enough (| head). What is left of it must not fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (MetaIndexError, ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        print(f"metaindex: {_one_line(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("metaindex: interrupted", file=sys.stderr)
        return FAILED


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
