"""What training is for: every budget finds what there is to find, and small ones collapse where only the largest is trained.

Of six seeds that were tried the worst were: with all groups 1.0 at every budget, with the largest alone 0.56 at (1,1).
"""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

from tests.training.task import ALL_GROUPS, quality


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_budget_reaches_the_ceiling(seed):
    assert min(quality(ALL_GROUPS, seed).values()) > 0.99


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_the_small_groups_small_budgets_collapse(seed):
    found = quality(ALL_GROUPS[-1:], seed)
    assert found["(4,8)"] > 0.99
    assert found["(1,1)"] < 0.75
    assert found["(2,4)"] < 0.97
