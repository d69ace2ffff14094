"""The CUDA scorer as far as nothing runs: how operations are cut up, which kernels scan, verdicts, a module without CUDA."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from metaindex._native import core
from metaindex.codecs import CODECS
from metaindex.device.residency import Residency
from metaindex.scoring.cuda import CudaOperations, CudaScorer
from tests import builders

# Capability, multiprocessors, shared memory that a block may have: CUDA C++ Programming Guide, compute capabilities.
A100, A10, H100, B200 = (80, 108, 163 << 10), (86, 72, 99 << 10), (90, 132, 227 << 10), (100, 148, 227 << 10)
CARDS = [A100, A10, H100, B200]
every_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: f"sm_{card[0]}")
TOKENS = (1, 4, 15, 16, 17, 32, 33, 64, 127, 128, 129, 300)
BATCHES = (1, 2, 3, 8, 64, 1000)


def numbers(text: str) -> dict[str, int]:
    """What stands before the reason, but for the path."""
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text.partition(":")[0])}


@every_card
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dim", [1, 33, 128, 250, 384, 3584, 8192])
def test_tiles_cover_what_is_asked_and_fit(card, codec, dim):
    for tokens, r_c, batch, own in itertools.product(TOKENS, (1, 2, 3, 8, 33, 64, 1030), BATCHES, (False, True)):
        text = core.cuda_tile(codec, dim, batch, tokens, r_c, 10_001, own, card)
        found = numbers(text)
        assert found["shared_bytes"] <= card[2], text
        assert found["blocks"] >= 1, text
        assert found["passes"] * found["query_tiles"] * 8 >= tokens, text
        assert found["queries"] * found["query_tiles"] <= found["kernel_tiles"], text
        assert found["queries"] == 1 or found["passes"] == 1, text
        assert found["queries"] * found["groups"] * found["column_blocks"] >= batch, text
        assert not own or found["queries"] == found["groups"] == 1, text
        if text.startswith("path=stream"):
            assert found["documents"] * found["tokens"] == 32, text
            assert found["units"] * found["documents"] >= 10_001, text
            assert found["column_blocks"] == (batch if own else 1), text
        else:
            assert found["documents"] * found["tokens"] == 64, text
            assert found["units"] * found["documents"] * 2 >= 10_001, text


def test_choices_of_note():
    def told(tokens, batch, dim=128, own=False):
        text = core.cuda_tile("float16", dim, batch, tokens, 64, 100_000, own, H100)
        return re.sub(r" .*", "", text), text.partition(": ")[2]

    assert told(16, 1) == ("path=stream", "few query tokens: bound by memory")
    assert told(16, 4) == ("path=stream", "few query tokens: bound by memory")
    assert told(16, 5)[0] == "path=tile"
    assert told(16, 64, own=True) == ("path=stream", "few query tokens: bound by memory")
    assert told(65, 1, own=True) == ("path=tile", "queries have too many tokens to stream documents past them")
    assert told(64, 1, dim=3584) == ("path=tile", "queries don't fit into shared memory")


def test_shapes_that_are_none():
    with pytest.raises(ValueError, match="shapes of at least 1"):
        core.cuda_tile("float16", 0, 1, 1, 1, 1, False, H100)
    with pytest.raises(ValueError, match="shapes of at least 1"):
        core.cuda_scan_path("float16", 8, 0, 1, 1, 1, True, H100)


def path(codec="float16", dim=128, batch=64, tokens=16, r_c=64, resident=True, card=H100):
    return core.cuda_scan_path(codec, dim, batch, tokens, r_c, 100_000, resident, card)


def test_batches_go_to_the_kernels_for_hopper():
    for codec, dim in itertools.product(("float16", "bfloat16", "int8"), (16, 128, 3584)):
        found, why = path(codec, dim)
        assert (found, why.startswith("path=sm90 documents=4 ")) == ("sm90", True)
        assert "more query tokens than they can be streamed past" in why
    # One query of 32 wide tokens does not fit beside the stages of a stream.
    assert path(dim=3584, batch=1, tokens=32)[0] == "sm90"


def test_few_query_tokens_stay_with_the_stream():
    for tokens, batch in itertools.product((1, 8, 16, 17, 32, 64, 65), (1, 2, 3, 4, 8, 9)):
        streamed = -(-tokens // 8) * batch <= 8
        found, why = path(tokens=tokens, batch=batch)
        assert found == ("portable" if streamed else "sm90"), why
        assert why.startswith("path=stream" if streamed else "path=sm90"), why


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ({"card": A100}, "wgmma is only in compute capability 9.0"),
        ({"card": B200}, "wgmma is only in compute capability 9.0"),
        ({"codec": "float32"}, "tensor cores would round float32"),
        ({"dim": 33}, "a multiple of 16 bytes"),
        ({"codec": "int8", "dim": 120}, "a multiple of 16 bytes"),
        ({"codec": "int8", "dim": 131_072}, "overflow int32"),
        ({"resident": False}, "host memory"),
    ],
)
def test_what_hopper_can_not_serve_is_told(rest, why):
    found, text = path(**rest)
    assert found == "portable"
    assert re.search(f"; not sm90: .*{why}", text), text


def test_whatever_is_chosen_for_hopper_is_served():
    for codec, dim, tokens, batch in itertools.product(CODECS, (1, 8, 16, 100, 3584), TOKENS, BATCHES):
        found, text = path(codec, dim, batch, tokens)
        served, _ = core.cuda_serves_sm90(codec, dim, 64, tokens, True, 90)
        assert found == "portable" or served, text
        assert numbers(text)["shared_bytes"] <= H100[2]


def test_pinned_operations_have_names():
    assert [CudaOperations(path).name for path in (None, "portable", "sm90")] == ["cuda", "cuda:portable", "cuda:sm90"]


def test_boxes_are_checked():
    def boxes(codes=((16,),), rows=((3,),), starts=(0,), widths=(4,), r_c=4):
        return core.DeviceScanBoxes("float16", 8, codes, rows, starts, widths, r_c)

    assert boxes().run_rows == 64
    assert boxes(r_c=1).run_rows == 256
    assert boxes().nbytes > 128
    for wrong, text in (
        ({"r_c": 5}, "r_c: expected 1 to the tokens"),
        ({"r_c": 0}, "r_c: expected 1 to the tokens"),
        ({"widths": ()}, "one of each for each level"),
        ({"rows": ()}, "as many segments as in codes"),
        ({"codes": ((16, 16),)}, "a number for each level"),
    ):
        with pytest.raises(ValueError, match=text):
            boxes(**wrong)
    with pytest.raises(ValueError, match="multiple of 64"):
        boxes().write(8)


def test_the_verdict_tells_why():
    asked = builders.queries([np.ones((1, 8), np.float32)], "float16")
    request = builders.request(asked, builders.snapshot([np.ones((1, 8), np.float32)], "float16"), "float16")
    for operations in (CudaOperations(), CudaOperations("sm90")):
        verdict = CudaScorer(Residency("cpu"), operations).supports(request)
        assert not verdict.ok
        assert re.search("no NVIDIA driver|built without CUDA|works on the CPU|torch", verdict.why)


def test_without_cuda_the_error_is_clear():
    if core.cuda_built():
        pytest.skip("the module was compiled with CUDA here")
    with pytest.raises(RuntimeError, match="compiled without CUDA"):
        core.DeviceQueue(0, 0) and core.cuda_topk(8, 0, 1, 1, 1, 8, 8, core.DeviceQueue(0, 0))
