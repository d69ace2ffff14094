"""A folder for indexes that are written thousands of times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.faults.server import Server
from tests.storage.faults.shim import compile_to


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a place: none of these tests needs a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A warm process with the shim preloaded."""
    started = Server(compile_to(tmp_path_factory.mktemp("shim")))
    yield started
    started.close()
