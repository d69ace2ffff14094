"""Fixed-dimensional encodings against a plain construction, and against the MaxSim that they estimate."""

from __future__ import annotations

import numpy as np
import pytest

from metaindex.coarse.fde import Fde, FdeEncoder
from metaindex.scoring.reference import maxsim
from tests.tolerances import COARSE_INNER_PRODUCT

DIM = 12
GOLDEN_DOCUMENTS = [
    [
        -0.25102001428604126,
        -0.6785699725151062,
        0.5773500204086304,
        -0.3020299971103668,
        0.5263400077819824,
        -0.479559987783432,
    ],
    [
        -0.25154998898506165,
        0.12551000714302063,
        -0.22592000663280487,
        -0.3012300133705139,
        -0.07530999928712845,
        -0.07530999928712845,
    ],
]
GOLDEN_QUERIES = [
    [0.0, -0.6024500131607056, 0.0, -0.6024500131607056, -0.6024500131607056, -1.9579700231552124],
    [-0.4016300141811371, 0.0, -0.6526600122451782, -0.20081999897956848, -0.050200000405311584, -0.20081999897956848],
]


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def plain(encoder: FdeEncoder, tokens: np.ndarray, document: bool) -> np.ndarray:
    """One document or query, cell by cell, without projections."""
    bits, cells = encoder.fde.bits, 2**encoder.fde.bits
    found = []
    for repetition in range(encoder.fde.repetitions):
        planes = encoder._planes[:, repetition * bits : (repetition + 1) * bits]
        signs = tokens @ planes > 0
        numbers = signs @ (1 << np.arange(bits))
        for cell in range(cells):
            inside = tokens[numbers == cell]
            if not document:
                found.append(inside.sum(axis=0) if len(inside) else np.zeros(DIM))
                continue
            if not len(inside):
                away = [bin(int(number) ^ cell).count("1") for number in numbers]
                inside = tokens[[int(np.argmin(away))]]
            mean = inside.mean(axis=0)
            found.append(mean * np.linalg.norm(inside, axis=1).mean() / np.linalg.norm(mean) / encoder.fde.repetitions)
    return np.concatenate(found)


def test_it_is_the_plain_construction():
    rng = np.random.default_rng(0)
    encoder = FdeEncoder(Fde(repetitions=3, bits=2, dim=0), DIM)
    lengths = np.array([1, 5, 3])
    tokens = unit(rng, 3, 5, DIM)
    tokens[np.arange(5) >= lengths[:, None]] = 0
    for document, encoded in ((True, encoder.documents(tokens, lengths)), (False, encoder.queries(tokens, lengths))):
        assert encoded.shape == (3, encoder.size) == (3, 3 * 4 * DIM)
        for each, length, found in zip(tokens, lengths, encoded):
            np.testing.assert_allclose(found, plain(encoder, each[:length], document), atol=COARSE_INNER_PRODUCT)


@pytest.mark.parametrize(
    "fde",
    [Fde(repetitions=40, bits=3, dim=0), Fde(repetitions=40, bits=3, dim=2048), Fde(repetitions=40, bits=3, inner=8, dim=0)],
)
def test_inner_products_rank_like_maxsim(fde):
    rng = np.random.default_rng(1)
    documents, queries = unit(rng, 200, 8, DIM), unit(rng, 10, 4, DIM)
    encoder = FdeEncoder(fde, DIM)
    found = encoder.queries(queries, np.full(10, 4)) @ encoder.documents(documents, np.full(200, 8)).T
    true = np.array([[maxsim(query, document) for document in documents] for query in queries])
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(found, true)]
    means = documents.mean(axis=1)
    pooled = [np.corrcoef(query.sum(axis=0) @ means.T, scores)[0, 1] for query, scores in zip(queries, true)]
    assert np.mean(correlations) > np.mean(pooled)
    assert np.mean(correlations) > 0.5


def test_a_token_against_itself_scores_its_square():
    tokens = unit(np.random.default_rng(2), 5, 1, DIM)
    encoder = FdeEncoder(Fde(repetitions=4, bits=3, dim=0), DIM)
    one = np.ones(5, int)
    np.testing.assert_allclose(
        np.diag(encoder.queries(tokens, one) @ encoder.documents(tokens, one).T), 1, atol=COARSE_INNER_PRODUCT
    )


def test_tokens_that_cancel_out_leave_nothing_large():
    token = unit(np.random.default_rng(3), 1, 1, DIM)
    both = np.concatenate([token, -token, token, -token], axis=1)
    for bits in (1, 3):
        encoded = FdeEncoder(Fde(repetitions=8, bits=bits, dim=0), DIM).documents(both, np.array([4]))
        assert np.isfinite(encoded).all()
        assert np.abs(encoded).max() <= 1


def test_what_lies_past_a_length_does_not_count_and_batches_do_not_matter():
    rng = np.random.default_rng(4)
    tokens, lengths = unit(rng, 40, 6, DIM), rng.integers(1, 7, 40)
    encoder = FdeEncoder(Fde(repetitions=3, bits=2, dim=64), DIM)
    other = tokens.copy()
    other[np.arange(6) >= lengths[:, None]] = 9
    for encode in (encoder.documents, encoder.queries):
        whole = encode(tokens, lengths)
        np.testing.assert_allclose(encode(other, lengths), whole, atol=COARSE_INNER_PRODUCT)
        alone = np.concatenate([encode(tokens[at : at + 1], lengths[at : at + 1]) for at in range(40)])
        np.testing.assert_allclose(alone, whole, atol=COARSE_INNER_PRODUCT)


def test_equal_settings_give_equal_encodings_for_ever():
    """Stored encodings are met by the queries of later versions: these numbers may not change."""
    tokens = np.linspace(-1, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    lengths = np.array([3, 2])
    encoder = FdeEncoder(Fde(repetitions=2, bits=2, inner=3, dim=6, seed=7), 4)
    again = FdeEncoder(Fde(repetitions=2, bits=2, inner=3, dim=6, seed=7), 4)
    np.testing.assert_array_equal(encoder.documents(tokens, lengths), again.documents(tokens, lengths))
    np.testing.assert_allclose(encoder.documents(tokens, lengths), GOLDEN_DOCUMENTS, atol=COARSE_INNER_PRODUCT)
    np.testing.assert_allclose(encoder.queries(tokens, lengths), GOLDEN_QUERIES, atol=COARSE_INNER_PRODUCT)
