"""The planted faults still fit the code; ``python -m tests.mutants`` shows that they are caught."""

from __future__ import annotations

import ast

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant, source


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_fits_the_code(mutant):
    ast.parse(source(mutant))
    assert (ROOT / mutant.test.partition("::")[0]).is_file()


def test_a_mutant_that_no_longer_fits_is_an_error():
    with pytest.raises(LookupError, match="stands 0 times"):
        source(Mutant("gone", "storage/place.py", "no such text", "", ""))
    with pytest.raises(LookupError, match="expected once"):
        source(Mutant("often", "storage/place.py", "self", "", ""))


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
