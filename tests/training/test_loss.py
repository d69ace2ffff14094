"""The loss against its formula in float64: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch

from metaindex.errors import ShapeError
from metaindex.training import GROUPS, MMRLoss, groups_of
from metaindex.training import loss as module
from tests import tolerances
from tests.training import plain

SMALL = ((1, 1), (2, 3), (4, 6))


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
    return torch.nn.functional.normalize(drawn, dim=-1)


def both(queries, documents, negatives, groups, temperature=0.03, weights=None, reduction="sum"):
    """Losses by group and gradients, ours in float32 and the formula's in float64."""
    given = [queries, documents] + ([] if negatives is None else [negatives])
    ours = [each.float().requires_grad_() for each in given]
    theirs = [each.detach().double().requires_grad_() for each in ours]
    loss = MMRLoss(groups, weights, temperature, reduction)
    found = loss.by_group(*ours)
    hard = theirs[2] if negatives is not None else [[]] * len(queries)
    expected = plain.losses(theirs[0], theirs[1], hard, groups, temperature)
    factors = [1.0] * len(groups) if weights is None else weights
    total = sum(factor * each for factor, each in zip(factors, expected))
    loss.total(found).backward()
    (total if reduction == "sum" else total / sum(factors)).backward()
    assert found.dtype == torch.float32
    return found.detach(), torch.stack(expected).detach(), [each.grad for each in ours], [each.grad for each in theirs]


def assert_same(found, expected, gradients, expected_gradients):
    np.testing.assert_allclose(found, expected, **tolerances.MMR_LOSS)
    for ours, theirs in zip(gradients, expected_gradients):
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerances.MMR_GRADIENT, atol=tolerances.MMR_GRADIENT * theirs.abs().max()
        )


@pytest.mark.parametrize("hard", [0, 1, 3])
@pytest.mark.parametrize(
    ("weights", "reduction"), [(None, "sum"), (None, "mean"), ([0.5, 2.0, 1.0], "sum"), ([0.5, 2.0, 1.0], "mean")]
)
def test_values_and_gradients(hard, weights, reduction):
    negatives = vectors(5, hard, 6, 8, seed=2) if hard else None
    assert_same(*both(vectors(5, 4, 8), vectors(5, 6, 8, seed=1), negatives, SMALL, 0.1, weights, reduction))


def test_a_temperature_for_each_group():
    assert_same(*both(vectors(5, 4, 8), vectors(5, 6, 8, seed=1), None, SMALL, [0.03, 0.1, 0.2]))


def test_groups_in_any_order_that_share_edges():
    groups = ((4, 2), (1, 6), (3, 2), (2, 6))
    assert_same(*both(vectors(4, 4, 8), vectors(4, 6, 8, seed=1), None, groups, 0.1))


def test_the_papers_groups_with_logits_of_533():
    """Each query token equals a token of its own document, and nearly one of all others'; so every logit is near 16 / 0.03."""
    base = vectors(1, 16, 32)
    queries = torch.nn.functional.normalize(base + 0.02 * vectors(3, 16, 32, seed=1), dim=-1)
    documents = vectors(3, 64, 32, seed=2)
    documents[:, :16] = torch.nn.functional.normalize(queries + 0.01 * vectors(3, 16, 32, seed=3), dim=-1)
    negatives = documents[[1, 2, 0], None] * 0.999
    results = both(queries, documents, negatives, GROUPS)
    assert_same(*results)
    own = plain.score(queries[0], documents[0], 16, 64) / 0.03
    assert own > 530
    assert (results[1] > 0.01).all()  # none of the losses is about nothing


def test_wrong_by_far():
    """The right document is the farthest: a loss of about 1,066, which exp of float32 could not hold."""
    queries = vectors(1, 1, 16).expand(2, 16, 16).clone()
    queries[1] *= -1
    documents = queries[[1, 0], :1].expand(2, 64, 16)
    found, expected, gradients, _ = both(queries, documents * 0.6, None, GROUPS)  # 640: the formula's limit is 709
    np.testing.assert_allclose(found, expected, **tolerances.MMR_LOSS)
    assert all(each.isfinite().all() for each in gradients)
    assert MMRLoss()(queries.float(), documents.float()) > 1000
    assert MMRLoss()(queries.float(), documents.float()).isfinite()


def test_blocks_are_the_same(monkeypatch):
    given = vectors(7, 4, 8).float(), vectors(7, 6, 8, seed=1).float(), vectors(7, 2, 6, 8, seed=2).float()
    results = []
    for limit in (1 << 25, 2 * 9 * 4 * 6, 1):
        monkeypatch.setattr(module, "_SIMILARITIES", limit)
        leaves = [each.clone().requires_grad_() for each in given]
        value = MMRLoss(SMALL)(*leaves)
        value.backward()
        with torch.no_grad():
            np.testing.assert_allclose(MMRLoss(SMALL)(*leaves), value.detach(), **tolerances.MMR_LOSS)
        results.append([value.detach(), *(each.grad for each in leaves)])
    for other in results[1:]:
        for found, expected in zip(other, results[0]):
            np.testing.assert_allclose(found, expected, rtol=tolerances.MMR_GRADIENT, atol=tolerances.MMR_GRADIENT)


def test_blocks_hold_few_similarities(monkeypatch):
    monkeypatch.setattr(module, "_SIMILARITIES", 2 * 40 * 4 * 6)
    seen = []
    original = MMRLoss._by_group
    monkeypatch.setattr(MMRLoss, "_by_group", lambda self, values: seen.append(values.numel()) or original(self, values))
    queries = vectors(40, 4, 8).float().requires_grad_()
    MMRLoss(SMALL)(queries, vectors(40, 6, 8, seed=1).float()).backward()
    assert max(seen) <= 2 * 40 * 4 * 6
    assert len(seen) == 40  # 20 blocks, each computed once more for its gradient


def test_hard_negatives_that_are_not_there():
    queries, documents, negatives = vectors(3, 4, 8), vectors(3, 6, 8, seed=1), vectors(3, 2, 6, 8, seed=2)
    present = torch.tensor([[True, False], [False, False], [True, True]])
    found = MMRLoss(SMALL).by_group(queries, documents, negatives, present=present)
    kept = [[negatives[0, 0]], [], [negatives[2, 0], negatives[2, 1]]]
    np.testing.assert_allclose(found, torch.stack(plain.losses(queries, documents, kept, SMALL, 0.03)), rtol=1e-9)


@pytest.mark.parametrize("of", ["documents", "queries"])
def test_the_same_document_is_no_negative(of):
    queries, documents, negatives = vectors(4, 4, 8), vectors(4, 6, 8, seed=1), vectors(4, 1, 6, 8, seed=2)
    documents[2], negatives[3, 0] = documents[0], documents[3]
    ids, negative_ids = torch.tensor([7, 8, 7, 9]), torch.tensor([[1], [2], [3], [9]])
    if of == "documents":
        about = {"ids": ids, "negative_ids": negative_ids}
    else:
        about = {"ids": torch.arange(6, 10), "negative_ids": negative_ids, "query_ids": ids}
    found = MMRLoss(SMALL).by_group(queries, documents, negatives, **about)
    parts = []
    for place, others in enumerate([[1, 3], [0, 2, 3], [1, 3], [0, 1, 2]]):
        rows = [documents[place], *documents[others]]
        hard = [negatives[place, 0]] if place < 3 else []
        parts.append(torch.stack(plain.losses(queries[place, None], rows, [hard], SMALL, 0.03)))
    np.testing.assert_allclose(found, torch.stack(parts).mean(dim=0), rtol=1e-9)
    assert (found < MMRLoss(SMALL).by_group(queries, documents, negatives)).all()


def test_the_right_document_of_an_equal_query_is_no_hard_negative():
    queries, documents, negatives = vectors(3, 4, 8), vectors(3, 6, 8, seed=1), vectors(3, 2, 6, 8, seed=2)
    ids, query_ids = torch.tensor([1, 2, 3]), torch.tensor([7, 8, 7])
    negative_ids = torch.tensor([[3, 4], [1, 3], [5, 1]])  # what is right for the first query is a negative of the second
    found = MMRLoss(SMALL).by_group(queries, documents, negatives, ids=ids, negative_ids=negative_ids, query_ids=query_ids)
    parts = []
    for place, (others, hard) in enumerate([([1], [1]), ([0, 2], [0, 1]), ([1], [0])]):
        rows = [documents[place], *documents[others]]
        parts.append(torch.stack(plain.losses(queries[place, None], rows, [negatives[place, hard]], SMALL, 0.03)))
    np.testing.assert_allclose(found, torch.stack(parts).mean(dim=0), rtol=1e-9)


def test_float64_is_kept_and_autocast_changes_nothing():
    queries, documents = vectors(3, 4, 8), vectors(3, 6, 8, seed=1)
    assert MMRLoss(SMALL)(queries, documents).dtype == torch.float64
    plainly = MMRLoss(SMALL)(queries.float(), documents.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(MMRLoss(SMALL)(queries.float(), documents.float()), plainly)
    assert MMRLoss(SMALL)(queries.bfloat16(), documents.bfloat16()).dtype == torch.float32


def test_groups_of_a_model():
    assert groups_of(16, 64) == GROUPS
    assert groups_of(4, 8) == ((1, 1), (2, 4), (4, 8))
    assert groups_of(4, 20) == ((1, 1), (2, 4), (4, 8), (4, 20))
    assert groups_of(1, 1) == ((1, 1),)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"groups": ()}, "groups: expected budgets"),
        ({"groups": ((0, 1),)}, "groups: expected budgets"),
        ({"weights": (1.0,)}, "weights: expected 5 numbers above 0"),
        ({"weights": (1.0, 1.0, 0.0, 1.0, 1.0)}, "weights: expected 5 numbers above 0"),
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"temperature": [0.03, 0.1]}, "temperature: expected a number above 0, or 5 of them"),
        ({"temperature": [0.03, 0.1, 0.2, -1.0, 0.1]}, "temperature: expected a number above 0, or 5 of them"),
        ({"reduction": "max"}, "reduction: expected 'sum' or 'mean'"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        MMRLoss(**arguments)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ([(2, 16, 8), (2, 63, 8)], r"expected at most \(16,63\).*got \(16,64\); metaindex.training.groups_of\(16, 63\)"),
        ([(2, 15, 8), (2, 64, 8)], r"expected at most \(15,64\)"),
        ([(2, 16, 8), (3, 64, 8)], r"expected \[B, R, d\] and \[B, T, d\]"),
        ([(2, 16, 8), (2, 64, 9)], r"expected \[B, R, d\] and \[B, T, d\]"),
        ([(2, 16, 8), (2, 64, 8), (2, 64, 8)], r"negatives: expected \[B, H, T, d\]"),
        ([(2, 16, 8), (2, 64, 8), (3, 1, 64, 8)], r"negatives: expected \[B, H, T, d\]"),
    ],
)
def test_bad_shapes(shapes, match):
    with pytest.raises(ShapeError, match=match):
        MMRLoss()(*(torch.zeros(shape) for shape in shapes))
