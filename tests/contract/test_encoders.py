"""The compiled encoders, bit for bit the numpy codecs."""

from __future__ import annotations

import numpy as np
import pytest

from metaindex import _native
from metaindex.codecs import CODECS, Parts, compiled

ISAS = ["serial", "avx2", "avx512"]
PACKED = ["float16", "bfloat16", "int8"]


def encoded(isa: str, codec: str, tokens: np.ndarray) -> Parts:
    there, why = _native.core.features()[isa]
    if not there:
        pytest.skip(f"{isa}: {why}")
    parts = compiled.empty(CODECS[codec], tokens.shape)
    parts.codes.view(np.uint8).fill(0xA5)
    if parts.scales is not None:
        parts.scales.fill(np.nan)
    _native.core.encode(codec, tokens, parts.codes, parts.scales, isa=isa, num_threads=2)
    return parts


def assert_same_bits(got: Parts, expected: Parts) -> None:
    assert got.codes.tobytes() == expected.codes.tobytes()
    assert (got.scales is None) == (expected.scales is None)
    if got.scales is not None and expected.scales is not None:
        assert got.scales.tobytes() == expected.scales.tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("dim", [1, 7, 8, 15, 16, 17, 31, 33, 128, 250])
def test_random_numbers(isa, codec, dim):
    rng = np.random.default_rng(dim)
    tokens = (rng.standard_normal((5, 40, dim)) * 10.0 ** rng.integers(-9, 4, (5, 40, 1))).astype(np.float32)
    tokens[0, 3] = 0
    assert_same_bits(encoded(isa, codec, tokens), CODECS[codec].encode(tokens))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("codec", PACKED)
def test_every_exponent_and_every_tie(isa, codec):
    # All float32 with these low bits: exact values, ties between neighbours, and what lies just beside a tie.
    high = np.arange(0, 0x7F80, dtype=np.uint32) << np.uint32(16)
    low = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (high[:, None] | low[None]).view(np.float32)
    values = values[values[:, 0] <= CODECS[codec].limit]
    values = np.minimum(values, np.float32(CODECS[codec].limit))
    tokens = np.stack([values, -values])
    assert_same_bits(encoded(isa, codec, tokens), CODECS[codec].encode(tokens))


@pytest.mark.parametrize("isa", ISAS)
def test_int8_ties_and_underflown_scales(isa):
    # With a largest number of 127 the scale is 1, and halves are ties.
    ties = np.concatenate([[127], np.arange(-126.5, 127, 0.5)]).astype(np.float32)
    tiny = np.full_like(ties, 1e-44)
    subnormal = np.linspace(-1e-39, 1e-39, len(ties), dtype=np.float32)
    tokens = np.stack([ties, -ties, tiny, subnormal, np.zeros_like(ties), np.full_like(ties, 3.4e38)])[None]
    assert_same_bits(encoded(isa, "int8", tokens), CODECS["int8"].encode(tokens))


@pytest.mark.parametrize("codec", list(CODECS))
def test_strided_sources_and_targets(codec):
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((6, 9, 20)).astype(np.float32)
    expected = CODECS[codec].encode(tokens[:, 2:5])
    target = compiled.empty(CODECS[codec], (8, 7, 20))
    out = Parts(target.codes[1:7, 2:5], None if target.scales is None else target.scales[1:7, 2:5])
    assert compiled.encode(CODECS[codec], tokens[:, 2:5], out, num_threads=2) is out
    assert_same_bits(out, expected)
    for shape in ((20,), (9, 20), (2, 3, 9, 20)):
        source = np.ascontiguousarray(rng.standard_normal(shape), dtype=np.float32)
        assert_same_bits(compiled.encode(CODECS[codec], source), CODECS[codec].encode(source))
    assert_same_bits(compiled.encode(CODECS[codec], tokens[..., ::2]), CODECS[codec].encode(tokens[..., ::2]))
    assert_same_bits(compiled.encode(CODECS[codec], np.asfortranarray(tokens)), CODECS[codec].encode(tokens))


@pytest.mark.parametrize("codec", list(CODECS))
def test_without_the_compiled_module(codec, monkeypatch):
    monkeypatch.setattr(_native, "missing", "no such file")
    tokens = np.random.default_rng(2).standard_normal((3, 4, 20)).astype(np.float32)
    assert_same_bits(compiled.encode(CODECS[codec], tokens), CODECS[codec].encode(tokens))
