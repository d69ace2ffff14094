"""Budgets and levels."""

import numpy as np
import pytest

from metaindex.types import Budget, Levels


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, (16, 64)),
        (8, (8, 8)),
        (64, (16, 64)),
        (1000, (16, 64)),
        ((1, 64), (1, 64)),
        ([2, 3], (2, 3)),
        (np.int64(4), (4, 4)),
    ],
)
def test_a_budget_is_cut_to_both_sides(given, meant):
    assert Budget.resolve(given, 16, 64) == meant


@pytest.mark.parametrize("given", [0, -1, (0, 1), (1, 0), (17, 1), (1, 65), (1, 2, 3), ()])
def test_a_budget_out_of_bounds_is_refused(given):
    with pytest.raises(ValueError, match="budget"):
        Budget.resolve(given, 16, 64)


@pytest.mark.parametrize("given", [1.0, "8", True, (1.5, 2), (True, 2)])
def test_a_budget_that_is_no_integer_is_a_type_error(given):
    with pytest.raises(TypeError, match="budget"):
        Budget.resolve(given, 16, 64)


@pytest.mark.parametrize(
    ("tokens", "edges"), [(1, (1,)), (2, (1, 2)), (20, (1, 2, 4, 8, 16, 20)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_levels_double(tokens, edges):
    assert Levels.doubling(tokens).edges == edges


def test_levels_grow_at_the_end_only():
    assert Levels.doubling(20).extended_to(50).edges == (1, 2, 4, 8, 16, 20, 40, 50)
    assert Levels((1, 4)).extended_to(3).edges == (1, 4)


@pytest.mark.parametrize(("r_c", "needed"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (64, 7), (100, 7)])
def test_a_budget_needs_a_prefix_of_levels(r_c, needed):
    assert Levels.doubling(64).needed(r_c) == needed


def test_a_level_spans_its_edges():
    levels = Levels((1, 4, 16))
    assert [(levels.start(level), levels.stop(level), levels.width(level)) for level in range(3)] == [
        (0, 1, 1),
        (1, 4, 3),
        (4, 16, 12),
    ]


@pytest.mark.parametrize("edges", [(), (0, 1), (2, 2), (3, 1)])
def test_edges_that_do_not_rise_are_refused(edges):
    with pytest.raises(ValueError, match="levels"):
        Levels(edges)
