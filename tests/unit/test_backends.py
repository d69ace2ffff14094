"""docs/backends.md says what the verdicts say."""

import importlib.util
from pathlib import Path

import pytest

from metaindex import _native
from metaindex.scoring.cpu import CpuScorer

DOCS = Path(__file__).parents[2] / "docs"


def _maker():
    spec = importlib.util.spec_from_file_location("make_backends", DOCS / "make_backends.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("isa", sorted(_native.core.features()))
def test_the_page_shows_this_verdict(isa):
    ok, why = _native.core.features()[isa]
    if not ok:
        pytest.skip(f"the page was made on a machine that has {isa}; here: {why}")
    assert _maker().row(CpuScorer(isa)) in (DOCS / "backends.md").read_text(encoding="utf-8").splitlines()
