"""Copies by boxes, mbarriers and wgmma: whole products with a ring of stages, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import emulator
from tests.emulator.numbers import matrices

_SOURCE = Path(__file__).with_name("snippets") / "wgmma.cu"
_RESULTS = {"f16": np.float32, "bf16": np.float32, "s8": np.int32}
_RING_BYTES = 3 * 2 * 64 * 128


def _product(module, kind, m, n, k, **options):
    (a, b), (x, y) = matrices(kind, (m, k), (n, k))
    c = np.full((m, n), -77, _RESULTS[kind])
    maps = [emulator.TensorMap.of(side, (64, 128 // side.itemsize), swizzle=128) for side in (a, b)]
    grid = (-(-n // 64), -(-m // 64))
    args = [*maps, c, m, n, k]
    module.launch(f"gemm_{kind}", grid, 160, args, shared_bytes=_RING_BYTES, memory=[a, b], **options)
    return c, x @ y.T


@pytest.mark.parametrize("kind", _RESULTS)
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 128), (100, 70, 720)])
@pytest.mark.parametrize("delivery", ["late", "early", "random"])
def test_products_by_wgmma(cuda, kind, m, n, k, delivery):
    found, expected = _product(cuda(_SOURCE.read_text(), "90a"), kind, m, n, k, delivery=delivery, seed=3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("bug", "message"),
    [
        ("NO_BARRIER", "race: reads shared memory|there is no mbarrier"),
        (
            "NO_EMPTY_WAIT",
            "more threads arrive|while the operation issued at line|while the copy issued at line|race: lets a copy write",
        ),
        ("NO_FULL_WAIT", "while the copy issued at line|race: reads"),
        ("NO_FENCE", "before any wgmma.fence"),
        ("NO_PRODUCT_WAIT", "while the operation issued at line|that nobody has waited for"),
        ("SHORT_EXPECTATION", "deadlock|while the copy issued|mbarrier"),
    ],
)
def test_what_is_left_out_is_found(cuda, bug, message):
    module = cuda(_SOURCE.read_text(), "90a", f"-D{bug}")
    for delivery in ("late", "early", "random"):
        with pytest.raises(emulator.EmulationError, match=message):
            _product(module, "f16", 64, 64, 1024, delivery=delivery)
