"""MaxSim in CUDA C++ on a GPU."""

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
    """See ``metaindex.device.operations.Operations``."""

    name = "cuda"

    def maxsim_scan(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, span: tuple[int, int], allow: Tensor | None, out: Output
    ) -> None:
        batch, room = queries.codes.shape[:2]
        size, _ = _native.core.cuda_tile(table.codec, table.dim, room, r_c, batch)
        runs = table.tiles(size, span)
        if not len(runs) or not batch:
            return
        where = (runs.data_ptr(), len(runs), size, _address(allow), *_output(out), *_where(table))
        _native.core.cuda_maxsim_scan(_table(table), _queries(queries), r_c, *where)

    def maxsim_gather(
        self, table: DeviceTable, queries: DeviceQueries, r_c: int, candidates: Tensor, allow: Tensor | None, out: Output
    ) -> None:
        lists, count = candidates.shape
        if not count or not len(queries):
            return
        candidates = candidates.contiguous()
        where = (candidates.data_ptr(), count, lists == 1, _address(allow), *_output(out), *_where(table))
        _native.core.cuda_maxsim_gather(_table(table), _queries(queries), r_c, *where)

    def topk(self, keys: Tensor, counts: Tensor, k: int) -> Tensor:
        import torch

        batch, n = keys.shape
        best = torch.empty((batch, k), dtype=torch.int64, device=keys.device)
        if not batch:
            return best
        nbytes = _native.core.cuda_topk_scratch_bytes(batch, n, k)
        scratch = torch.empty(nbytes, dtype=torch.uint8, device=keys.device)
        alone = k <= _native.core.CUDA_SORTED_KEYS
        stream = torch.cuda.current_stream(keys.device).cuda_stream
        where = (keys.device.index, stream)
        _native.core.cuda_topk(
            keys.data_ptr(), counts.data_ptr(), batch, n, k, alone, scratch.data_ptr(), best.data_ptr(), *where
        )
        # More than one block sorts: torch's radix sort does that as well as any.
        return best if alone else best.sort(dim=1, descending=True).values


def _table(table: DeviceTable) -> Any:
    found = _tables.get(table)
    if found is None:
        fields = {
            "codes": table.codes.data_ptr(),
            "scales": _address(table.scales),
            "first_rows": table.first_rows.data_ptr(),
            "lengths": table.lengths.data_ptr(),
            "starts": table.starts.data_ptr(),
            "widths": table.widths.data_ptr(),
            "token_levels": table.token_levels.data_ptr(),
            "places": _address(table.places),
            "segments": len(table.segment_rows),
            "levels": len(table.shape[0]),
            "tokens": table.tokens,
            "dim": table.dim,
            "rows": table.rows,
            "full": table.full,
        }
        found = _tables[table] = _native.core.DeviceTable(table.codec, fields)
    return found


def _queries(queries: DeviceQueries) -> Any:
    batch, room = queries.codes.shape[:2]
    lengths = queries.lengths.data_ptr()
    return _native.core.DeviceQueries(queries.codes.data_ptr(), _address(queries.scales), lengths, batch, room)


def _output(out: Output) -> tuple[int, int, int, int, int, int]:
    if isinstance(out, Hits):
        keys, counts, thresholds = out.keys.data_ptr(), out.counts.data_ptr(), out.thresholds.data_ptr()
        return 0, 0, keys, counts, thresholds, out.keys.shape[1]
    return out.data_ptr(), out.shape[1], 0, 0, 0, 0


def _where(table: DeviceTable) -> tuple[int, int]:
    import torch

    return table.device.index or 0, torch.cuda.current_stream(table.device).cuda_stream


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
