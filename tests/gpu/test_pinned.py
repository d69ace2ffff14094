"""Host memory that kernels read over the bus."""

from __future__ import annotations

import pytest
import torch

from metaindex.device import pinned
from tests.gpu.card import DEVICE

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("nbytes", [1, 4096, (5 << 20) + 3])
def test_what_is_registered_is_pinned(nbytes):
    if not pinned._reads_host_addresses(DEVICE):
        pytest.skip("this driver gives registered memory a second address")
    made = pinned._registered(nbytes, DEVICE)
    assert made is not None
    assert made.is_pinned()
    assert made.data_ptr() % 16 == 0
    values = torch.arange(nbytes, device=DEVICE).to(torch.uint8)
    made.copy_(values)
    assert torch.equal(made.to(DEVICE, non_blocking=True), values)


def test_blocks_come_and_go():
    """Those that are gone are not registered any more, so their addresses may be once more."""
    for _ in range(20):
        block = pinned.pinned(3 << 20, DEVICE)
        assert block.is_pinned()
        del block


class Refusing:
    """A runtime that is asked with flags it does not know."""

    def __init__(self) -> None:
        self.real = torch.cuda.cudart()

    def cudaHostRegister(self, address, nbytes, flags):  # noqa: N802
        return self.real.cudaHostRegister(address, nbytes, 1 << 20)


def test_a_refusal_disturbs_nothing_after_it(monkeypatch):
    torch.ones(1, device=DEVICE)
    refusing = Refusing()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: refusing)
    assert pinned._registered(10_000, DEVICE) is None
    assert torch.ones(1, device=DEVICE).item() == 1
    assert pinned.pinned(10_000, DEVICE).is_pinned()  # torch's, in its place
