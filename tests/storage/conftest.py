"""What several tests of the storage start from."""

from __future__ import annotations

import pytest

from metaindex.storage.store import Store
from tests.storage.support import add, schema, vectors


@pytest.fixture
def index(tmp_path):
    """A closed index of two documents."""
    path = tmp_path / "index"
    store = Store.create(schema(), path)
    add(store, vectors(2))
    store.close()
    return path
