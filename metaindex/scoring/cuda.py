"""MaxSim on an NVIDIA GPU by the kernels in csrc/cuda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from metaindex import _native
from metaindex.device.devices import why_no_gpu
from metaindex.device.operations import DeviceQueries, Hits, Output
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.scoring.device import DeviceScorer
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest

if TYPE_CHECKING:
    from torch import Tensor

TABLE_TENSORS = ("codes", "scales", "first_rows", "lengths", "starts", "widths", "token_levels", "places")
# The addresses in a table never change, so they are handed over once.
_tables: WeakKeyDictionary[DeviceTable, Any] = WeakKeyDictionary()


class CudaScorer(DeviceScorer):
    """Serves everything on a GPU of compute capability 8.0 and above."""

    def __init__(self, residency: Residency) -> None:
        super().__init__(CudaOperations(), residency)

    def supports(self, request: ScoreRequest) -> Verdict:
        if _native.missing is not None:
            return Verdict(False, f"the compiled module is missing ({_native.missing})")
        if not _native.core.cuda_built():
            return Verdict(False, "the compiled module was built without CUDA")
        if self.residency.name == "cpu":
            return Verdict(False, why_no_gpu() or "the index works on the CPU")
        return super().supports(request)


class CudaOperations:
    """See ``metaindex.device.operations.Operations``. Work is queued on torch's current stream of the tensors' device."""

    name = "cuda"

    def maxsim_scan(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, span: tuple[int, int], allow: Tensor | None, out: Output
    ) -> None:
        runs = table.tiles(_native.core.CUDA_RUN_ROWS, span)
        where = (_address(runs), len(runs), _address(allow), _output(out), queue_of(runs))
        _native.core.cuda_maxsim_scan(_table(table), _queries(queries), r_c, *where)

    def maxsim_gather(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, candidates: Tensor, allow: Tensor | None, out: Output
    ) -> None:
        candidates = candidates.contiguous()
        where = (_address(candidates), *candidates.shape, _address(allow), _output(out), queue_of(candidates))
        _native.core.cuda_maxsim_gather(_table(table), _queries(queries), r_c, *where)

    def topk(self, keys: Tensor, counts: Tensor, k: int) -> Tensor:
        import torch

        batch, columns = keys.shape
        best = torch.empty((batch, k), dtype=torch.int64, device=keys.device)
        nbytes = _native.core.cuda_topk_scratch_bytes(batch, columns, k)
        scratch = torch.empty(nbytes, dtype=torch.uint8, device=keys.device)
        where = (_address(scratch), _address(best), queue_of(keys))
        _native.core.cuda_topk(_address(keys), _address(counts), batch, columns, k, *where)
        return best

    def encode(self, codec: str, tokens: Tensor, codes: Tensor, scales: Tensor | None) -> None:
        """Encode float32 tokens [..., d] into ``codes`` [..., d] and, for int8, ``scales`` float32 [...], all contiguous; bit
        for bit what the numpy codecs give."""
        dim = tokens.shape[-1]
        where = (_address(codes), _address(scales), queue_of(tokens))
        _native.core.cuda_encode(codec, _address(tokens), tokens.numel() // dim, dim, *where)


def queue_of(tensor: Tensor) -> Any:
    """The device of a tensor with torch's current stream there."""
    import torch

    return _native.core.DeviceQueue(tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream)


def _table(table: DeviceTable) -> Any:
    found = _tables.get(table)
    if found is None:
        addresses = {name: _address(getattr(table, name)) for name in TABLE_TENSORS}
        shape = (len(table.segment_rows), len(table.shape[0]), table.tokens, table.full)
        found = _tables[table] = _native.core.DeviceTable(table.codec, table.dim, table.rows, *shape, addresses)
    return found


def _queries(queries: DeviceQueries) -> Any:
    batch, tokens = queries.codes.shape[:2]
    lengths = _address(queries.lengths)
    return _native.core.DeviceQueries(_address(queries.codes), _address(queries.scales), lengths, batch, tokens)


def _output(out: Output) -> Any:
    if isinstance(out, Hits):
        addresses = (_address(out.keys), _address(out.counts), _address(out.thresholds))
        return _native.core.DeviceOutput.of_hits(*addresses, out.keys.shape[1])
    return _native.core.DeviceOutput.of_scores(_address(out), out.shape[1])


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
