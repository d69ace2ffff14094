"""The Triton kernels under Triton's interpreter, with the tiles of GPUs, against plain operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metaindex.codecs import CODECS
from metaindex.device.residency import Residency
from metaindex.scoring import triton as scoring
from metaindex.scoring.triton import TritonOperations, TritonScorer
from tests import builders
from tests.kernels import cases

if why := scoring.why_not("cpu"):
    pytest.skip(f"these tests interpret the kernels: {why}", allow_module_level=True)

from metaindex.kernels.tiles import INTERPRETER, Card

CARDS = [Card(80, 1), Card(90, 1), Card(100, 1), Card(INTERPRETER, 1)]
every_card = pytest.mark.parametrize(
    "card", CARDS, ids=lambda card: f"sm_{card.capability}" if card.capability else "interpreter"
)
every_codec = pytest.mark.parametrize("kind", CODECS)
two_cards = pytest.mark.parametrize("card", [CARDS[1], CARDS[3]], ids=["sm_90", "interpreter"])


@pytest.fixture
def rng():
    return np.random.default_rng(31)


@every_card
@every_codec
def test_scan_and_gather(rng, card, kind):
    cases.scan_and_gather(rng, TritonOperations(card), kind)


@every_card
@every_codec
@pytest.mark.parametrize("dim", [8, 33, 250, 520])
def test_dimensions_that_tiles_do_not_divide(rng, card, kind, dim):
    """In tiles that hold all dimensions and in such that don't."""
    cases.dimensions(rng, TritonOperations(card), kind, dim)


@every_card
def test_more_tokens_than_a_tile(rng, card):
    cases.more_tokens_than_a_tile(rng, TritonOperations(card))


@every_card
@pytest.mark.parametrize("dim", [260, 261, 4096])
def test_int8_sums_are_exact(card, dim):
    cases.exact_int8_sums(TritonOperations(card), dim)


@every_codec
@two_cards
def test_addresses_beyond_32_bits(rng, card, kind):
    cases.addresses_beyond_32_bits(rng, TritonOperations(card), kind)


def test_many_segments(rng):
    cases.many_segments(rng, TritonOperations())


def test_nothing_to_score(rng):
    cases.nothing_to_score(rng, TritonOperations())


@two_cards
@pytest.mark.parametrize("k", [1, 10, 64, 65, 300, 1500])
def test_topk(rng, card, k):
    cases.topk(rng, TritonOperations(card), k)


def test_topk_of_65536(rng):
    cases.topk_of_65536(rng, TritonOperations())


@every_card
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # the interpreter's maximum of a NaN
def test_keys_are_those_of_the_host(card):
    cases.keys_of_the_host(TritonOperations(card))


def test_scores_repeat_bit_for_bit(rng):
    cases.repeats_bit_for_bit(rng, TritonOperations())


def test_verdicts(monkeypatch, rng):
    request = builders.request(
        builders.queries(builders.documents(rng, [1], 4), "int8"),
        builders.snapshot(builders.documents(rng, [1], 4), "int8"),
        "int8",
    )
    assert TritonScorer(Residency("cpu")).supports(request).ok
    if not torch.cuda.is_available():
        assert "no NVIDIA driver" in TritonScorer(Residency("cuda:0")).supports(request).why
    assert "not on 'mps'" in TritonScorer(Residency("mps")).supports(request).why
    monkeypatch.setattr("triton.__version__", "3.5.1")
    assert "older than 3.6" in TritonScorer(Residency("cpu")).supports(request).why
    for missing in ("torch", "triton"):
        monkeypatch.setattr(
            scoring.importlib.util, "find_spec", lambda name, missing=missing: None if name == missing else name
        )
        assert f"{missing} is not installed" in TritonScorer(Residency("cpu")).supports(request).why
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "lies on the CPU" in TritonScorer(Residency("cpu")).supports(request).why
