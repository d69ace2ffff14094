"""MaxSim on a GPU by the Triton kernels in ``metaindex.kernels``, which are compiled when they are first used."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from metaindex.device import keys as device_keys
from metaindex.device.devices import why_no_gpu
from metaindex.device.operations import DeviceQueries, Output
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from metaindex.kernels.tiles import Card

_OLDEST = (3, 6)


class TritonOperations:
    """See ``Operations``. Tiles are those of the device, or of ``card``."""

    name = "triton"

    def __init__(self, card: Card | None = None) -> None:
        self._card = card

    def maxsim_scan(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, span: tuple[int, int], allow: Tensor | None, out: Output
    ) -> None:
        from metaindex.kernels import maxsim_scan

        if launch := maxsim_scan.launch(self._card_of(table.device), table, queries, r_c, span, allow, out):
            launch.run(table.device)

    def maxsim_gather(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, candidates: Tensor, allow: Tensor | None, out: Output
    ) -> None:
        from metaindex.kernels import maxsim_gather

        if launch := maxsim_gather.launch(self._card_of(table.device), table, queries, r_c, candidates, allow, out):
            launch.run(table.device)

    def topk(self, keys: Tensor, counts: Tensor, k: int) -> Tensor:
        from metaindex.kernels import topk

        kept = keys.new_full((len(keys), k), device_keys.MISSING)
        for launch in topk.launches(self._card_of(keys.device), keys, counts, kept):
            launch.run(keys.device)
        return kept

    def _card_of(self, device: torch.device) -> Card:
        from metaindex.kernels.launch import card

        return self._card or card(device)


class TritonScorer(DeviceScorer):
    """Serves every request on a GPU of compute capability 8.0 and above, and on a CPU under Triton's interpreter."""

    def __init__(self, residency: Residency, operations: TritonOperations | None = None) -> None:
        super().__init__(operations or TritonOperations(), residency)

    def supports(self, request: ScoreRequest) -> Verdict:
        kind, _, number = self.residency.name.partition(":")
        if why := why_not(kind, int(number or 0)):
            return Verdict(False, why)
        return super().supports(request)


def why_not(device: str, number: int = 0) -> str | None:
    """Why the kernels can't run on a ``device`` of torch, "cpu" or "cuda", of that ``number``; ``None`` where they can."""
    if device not in ("cpu", "cuda"):
        return f"its kernels run on NVIDIA GPUs, not on {device!r}"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "its kernels run on a GPU; this index lies on the CPU (TRITON_INTERPRET=1 runs them there, slowly, for tests)"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST:
        return f"triton {triton.__version__} is older than {'.'.join(map(str, _OLDEST))}"
    if device == "cpu":
        return None
    return why_no_gpu(number)
