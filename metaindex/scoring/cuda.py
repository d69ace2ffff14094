"""MaxSim on an NVIDIA GPU by the kernels in csrc/cuda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

from metaindex import _native
from metaindex.device.devices import why_no_gpu
from metaindex.device.operations import DeviceQueries, Hits, Output
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.errors import BackendError
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ScanPath: TypeAlias = Literal["portable", "sm90"]
TABLE_TENSORS = ("codes", "scales", "first_rows", "lengths", "starts", "widths", "token_levels", "places")
_BOX_ALIGNMENT = 128


class CudaScorer(DeviceScorer):
    """Serves everything on a GPU of compute capability 8.0 and above; with pinned operations what those serve."""

    operations: CudaOperations

    def __init__(self, residency: Residency, operations: CudaOperations | None = None) -> None:
        super().__init__(operations or CudaOperations(), residency)

    def supports(self, request: ScoreRequest) -> Verdict:
        why = self.operations.why_not(self.residency.name) or self.operations.why_no_scan(request, self.residency)
        return Verdict(False, why) if why else super().supports(request)


class CudaOperations:
    """See ``metaindex.device.operations.Operations``. Work is queued on torch's current stream of the tensors' device.

    Args:
        path: the kernels that scan, for tests and benchmarks: "portable", those for every GPU, or "sm90", those for compute
            capability 9.0. By default those that ``scan_path`` names. There is one way to gather and to find the top k.
    """

    def __init__(self, path: ScanPath | None = None) -> None:
        self.path = path
        # Addresses never change, so they are handed over once; tables take theirs with them.
        self._tables: WeakKeyDictionary[DeviceTable, Any] = WeakKeyDictionary()
        self._cards: list[tuple[int, int, int]] = []

    @property
    def name(self) -> str:
        return "cuda" if self.path is None else f"cuda:{self.path}"

    @property
    def core(self) -> Any:
        """The compiled module."""
        return _native.core

    def why_not(self, device: str) -> str | None:
        """Why the kernels can't run on a device, "cpu" or "cuda:<number>"; ``None`` where they can."""
        if _native.missing is not None:
            return f"the compiled module is missing ({_native.missing})"
        if not self.core.cuda_built():
            return "the compiled module was built without CUDA"
        return (why_no_gpu() or "the index works on the CPU") if device == "cpu" else None

    def why_no_scan(self, request: ScoreRequest, residency: Residency) -> str | None:
        """Why the pinned kernels can't scan as requested; ``None`` where they can or none are pinned."""
        if self.path != "sm90" or request.candidates is not None:
            return None
        tokens = max(1, min(request.budget.r_q, request.queries.parts.codes.shape[1]))
        shape = (request.codec.name, request.dim, request.budget.r_c, tokens)
        served, why = self.core.cuda_serves_sm90(*shape, True, self._card(residency.device)[0])
        return None if served else why

    def scan_path(self, table: DeviceTable, queries: DeviceQueries, r_c: int, rows: int) -> tuple[ScanPath, str]:
        """The kernels that scan ``rows`` rows for these queries at r_c, and how and why.

        Raises BackendError: pinned kernels don't serve it.
        """
        batch, tokens = queries.codes.shape[:2]
        card = self._card(table.device)
        if self.path == "portable":
            return self.path, self.core.cuda_tile(table.codec, table.dim, batch, tokens, r_c, rows, False, card)
        if self.path is None:
            shape = (table.codec, table.dim, batch, tokens, r_c, rows, table.resident)
            return self.core.cuda_scan_path(*shape, card)  # type: ignore[no-any-return]
        served, why = self.core.cuda_serves_sm90(table.codec, table.dim, r_c, tokens, table.resident, card[0])
        if not served:
            raise BackendError(f"{self.name} can't scan: {why}")
        return self.path, why

    def maxsim_scan(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, span: tuple[int, int], allow: Tensor | None, out: Output
    ) -> None:
        if span[0] >= span[1] or not len(queries):
            return
        r_c = min(r_c, table.tokens)
        path, _ = self.scan_path(table, queries, r_c, span[1] - span[0])
        asked = self._table(table), self._queries(queries)
        if path == "sm90":
            boxes, memory = self._scan_boxes(table, r_c)
            runs = table.tiles(boxes.run_rows, span)
            where = (self.address(runs), len(runs), self.address(allow), self._output(out))
            self.core.cuda_maxsim_scan_sm90(*asked, *where, boxes, self.address(memory), self.queue(runs))
        else:
            runs = table.tiles(self.core.CUDA_RUN_ROWS, span)
            where = (self.address(runs), len(runs), self.address(allow), self._output(out))
            self.core.cuda_maxsim_scan(*asked, r_c, *where, self.queue(runs))

    def maxsim_gather(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, candidates: Tensor, allow: Tensor | None, out: Output
    ) -> None:
        candidates = candidates.contiguous()
        where = (self.address(candidates), *candidates.shape, self.address(allow), self._output(out), self.queue(candidates))
        self.core.cuda_maxsim_gather(self._table(table), self._queries(queries), r_c, *where)

    def topk(self, keys: Tensor, counts: Tensor, k: int) -> Tensor:
        import torch

        batch, columns = keys.shape
        best = torch.empty((batch, k), dtype=torch.int64, device=keys.device)
        nbytes = self.core.cuda_topk_scratch_bytes(batch, columns, k)
        scratch = torch.empty(nbytes, dtype=torch.uint8, device=keys.device)
        where = (self.address(scratch), self.address(best), self.queue(keys))
        self.core.cuda_topk(self.address(keys), self.address(counts), batch, columns, k, *where)
        return best

    def queue(self, tensor: Tensor) -> Any:
        """The device of a tensor with torch's current stream there."""
        import torch

        return self.core.DeviceQueue(tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream)

    def address(self, tensor: Tensor | None) -> int:
        return 0 if tensor is None else tensor.data_ptr()

    def _card(self, device: torch.device) -> tuple[int, int, int]:
        if not self._cards:
            self._cards = self.core.cuda_cards()
        return self._cards[device.index or 0]

    def _table(self, table: DeviceTable) -> Any:
        found = self._tables.get(table)
        if found is None:
            addresses = {name: self.address(getattr(table, name)) for name in TABLE_TENSORS}
            shape = (len(table.segment_rows), len(table.shape[0]), table.tokens, table.full)
            found = self._tables[table] = self.core.DeviceTable(table.codec, table.dim, table.rows, *shape, addresses)
        return found

    def _scan_boxes(self, table: DeviceTable, r_c: int) -> tuple[Any, Tensor]:
        """What the scan on Hopper reads besides the table, as the host knows it and as it lies on the device: made by the first
        scan of a table at r_c, which waits for the device; later ones only read it, on whatever stream. The table keeps it,
        so whoever holds that for work under way, or for a graph, holds this too."""

        def made() -> tuple[Any, Tensor]:
            starts, widths = table.shape
            levels = (table.codes.tolist(), table.level_rows, starts, widths)
            boxes = self.core.DeviceScanBoxes(table.codec, table.dim, *levels, r_c)
            return boxes, _uploaded(boxes, table.device)

        return table.derived((self.core, r_c), made)

    def _queries(self, queries: DeviceQueries) -> Any:
        batch, tokens = queries.codes.shape[:2]
        where = (self.address(queries.codes), self.address(queries.scales), self.address(queries.lengths))
        return self.core.DeviceQueries(*where, batch, tokens)

    def _output(self, out: Output) -> Any:
        if isinstance(out, Hits):
            addresses = (self.address(out.keys), self.address(out.counts), self.address(out.thresholds))
            return self.core.DeviceOutput.of_hits(*addresses, out.keys.shape[1])
        return self.core.DeviceOutput.of_scores(self.address(out), out.shape[1])


def _uploaded(boxes: Any, device: torch.device) -> Tensor:
    import torch

    on_gpu = device.type == "cuda"
    host = torch.empty(boxes.nbytes, dtype=torch.uint8, pin_memory=on_gpu)
    boxes.write(host.data_ptr())
    room = torch.empty(boxes.nbytes + _BOX_ALIGNMENT, dtype=torch.uint8, device=device)
    memory = room[-room.data_ptr() % _BOX_ALIGNMENT :][: boxes.nbytes]
    memory.copy_(host, non_blocking=True)
    if on_gpu:
        torch.cuda.current_stream(device).synchronize()
    return memory
