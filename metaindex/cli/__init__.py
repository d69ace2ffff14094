"""The ``metaindex`` command."""

from metaindex.cli.main import main

__all__ = ["main"]
