"""What GPU scorers share: a request becomes operations on device tensors, block by block, so that no [B, N] scores exist."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Parts
from metaindex.device import keys
from metaindex.device.operations import DeviceQueries, Hits, Operations
from metaindex.device.residency import Residency
from metaindex.device.table import DeviceTable
from metaindex.errors import CapacityError
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest

if TYPE_CHECKING:
    from torch import Tensor

_HIT_BYTES = 64 << 20  # of keys, for all queries of a batch; a quarter of the working memory
_FIRST_ROWS = 1 << 13  # scored first: their k best give the thresholds that keep the rest from writing much


class DeviceScorer:
    """A scorer made of ``Operations`` on the device of a ``Residency``. Subclasses say what their kernels can do."""

    def __init__(self, operations: Operations, residency: Residency) -> None:
        self.operations, self.residency = operations, residency

    @property
    def name(self) -> str:
        return self.operations.name

    def supports(self, request: ScoreRequest) -> Verdict:
        if request.snapshot.rows > keys.LAST_PLACE:
            return Verdict(False, f"{request.snapshot.rows:,} rows are more than its keys can tell apart")
        if request.beyond:
            codecs = ", ".join(f"{band.codec.name} from token {band.start} on" for band in request.bands)
            return Verdict(False, f"its kernels read one codec in a stage, and this one reads {codecs}")
        return Verdict(True, self.residency.name)

    def score(self, request: ScoreRequest, scores: Any, rows: Any = None) -> None:
        """See ``Scorer.score``. The arrays may be numpy's or tensors on the device; so may the request's candidates."""
        found, found_rows = self.run(request)
        _fill(scores, found)
        if rows is not None:
            _fill(rows, found_rows)

    def run(self, request: ScoreRequest) -> tuple[Tensor, Tensor | None]:
        """What ``score`` fills in, as tensors on the device; nothing waits for the device.

        Raises:
            CapacityError: the memory of the device is exhausted, and neither a smaller batch nor a new placement helps.
        """
        import torch

        try:
            return self._run(request)
        except torch.OutOfMemoryError:
            pass  # what the failed call held is free again once its frames are gone
        if self.residency.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(request.queries) > 1:
            found = [self.run(part) for part in _halves(request)]
            rows = [each for _, each in found if each is not None]
            return torch.cat([scores for scores, _ in found]), torch.cat(rows) if rows else None
        self.residency.forget()
        try:
            return self._run(request)
        except torch.OutOfMemoryError as error:
            raise self.exhausted(error) from None

    def exhausted(self, error: BaseException) -> CapacityError:
        """What tells that the memory of the device did not suffice, as torch says in ``error``."""
        advice = "close what else uses the GPU, lower k, or set device_memory_limit so that levels leave more room"
        needed, free = self.residency.working_bytes()
        return CapacityError(f"device memory ({str(error).splitlines()[0]})", needed, free, advice)

    def mark(self) -> Any:
        """A moment in the work that was queued on the device; see ``seconds``."""
        if self.residency.device.type != "cuda":
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.residency.device))
        return event

    @staticmethod
    def seconds(start: Any, stop: Any) -> float:
        """The time between two marks, once the work before the second is done."""
        if isinstance(start, float):
            return float(stop - start)
        return float(start.elapsed_time(stop)) / 1e3

    def _run(self, request: ScoreRequest) -> tuple[Tensor, Tensor | None]:
        device = self.residency.device
        table = self.residency.table(request.snapshot, request.codec, request.dim, request.budget.r_c)
        queries = uploaded(request, device)
        if request.allow is request.snapshot.alive:  # the same for every search of the snapshot
            allow = table.alive
        else:
            allow = None if request.allow is None else to_device(request.allow, device, "bool")
        candidates: Any = request.candidates
        if isinstance(candidates, np.ndarray):
            candidates = to_device(candidates if request.k is None else without_repeats(candidates), device, "int64")
        elif candidates is not None:
            candidates = candidates.to(device)
        step = Step(self.operations, table, queries, request.budget.r_c, candidates, allow)
        try:
            return (step.all_scores(), None) if request.k is None else step.best(request.k)
        finally:  # though memory ran out, a part was queued
            self.residency.queued(table)


class Step:
    """One operation on one batch, from queries on the device to scores or the k best on the device."""

    def __init__(
        self,
        operations: Operations,
        table: DeviceTable,
        queries: DeviceQueries,
        r_c: int,
        candidates: Tensor | None = None,
        allow: Tensor | None = None,
    ) -> None:
        self.operations, self.table, self.queries, self.r_c = operations, table, queries, min(r_c, table.tokens)
        self.candidates, self.allow = candidates, allow

    def all_scores(self) -> Tensor:
        """Scores float32 [B, rows] or [B, C]; -inf for what is left out."""
        import torch

        width = self.table.rows if self.candidates is None else self.candidates.shape[1]
        out = torch.empty((len(self.queries), width), dtype=torch.float32, device=self.table.device)
        if out.numel() == 0:
            return out
        if self.candidates is not None:
            self.operations.maxsim_gather(self.table, self.queries, self.r_c, self.candidates, self.allow, out)
        else:
            self.operations.maxsim_scan(self.table, self.queries, self.r_c, (0, width), self.allow, out)
        return out

    def best(self, k: int) -> tuple[Tensor, Tensor]:
        """The k best: scores float32 [B, k] falling and rows int64 [B, k], -inf and -1 where there are fewer."""
        best = self._best_keys(k)
        scores, places = keys.decode(best)
        if self.table.rows_at is None:
            return scores, places
        return scores, self.table.rows_at[places.clamp(min=0)].masked_fill(places < 0, -1)

    def _best_keys(self, k: int) -> Tensor:
        import torch

        total = self.table.rows if self.candidates is None else self.candidates.shape[1]
        batch, device = len(self.queries), self.table.device
        if not total or not batch:
            return torch.full((batch, k), keys.MISSING, dtype=torch.int64, device=device)
        # Rounded, so that most k have the same spans: tables keep the runs of each.
        room = rounded(max(1, _HIT_BYTES // (8 * batch) - k))
        hits = Hits.empty(batch, min(total, k) + min(total, room), device)
        best: Tensor | None = None
        for start, stop in spans(total, room, max(_FIRST_ROWS, rounded(4 * k))):
            if best is not None:
                self._keep(hits, best)
            self._append(hits, start, stop)
            best = self.operations.topk(hits.keys, hits.counts, k)
        assert best is not None
        return best

    def _append(self, hits: Hits, start: int, stop: int) -> None:
        if self.candidates is None:
            self.operations.maxsim_scan(self.table, self.queries, self.r_c, (start, stop), self.allow, hits)
        else:
            block = self.candidates[:, start:stop].contiguous()
            self.operations.maxsim_gather(self.table, self.queries, self.r_c, block, self.allow, hits)

    @staticmethod
    def _keep(hits: Hits, best: Tensor) -> None:
        """Start again from the best so far: what comes must be above the last of them."""
        kept = min(best.shape[1], hits.keys.shape[1])
        hits.keys[:, :kept].copy_(best[:, :kept])
        hits.counts.copy_((best != keys.MISSING).sum(dim=1))
        hits.thresholds.copy_(best[:, -1])


def rounded(number: int) -> int:
    """A natural number down to one whose first three bits alone are set."""
    lower = max(0, number.bit_length() - 3)
    return number >> lower << lower


def spans(total: int, room: int, first: int) -> Iterator[tuple[int, int]]:
    """``total`` rows in blocks of at most ``room``, the first one shorter where that pays: after it there are thresholds."""
    start, stop = 0, min(room, first) if total > 4 * first else min(room, total)
    while start < total:
        yield start, stop
        start, stop = stop, min(total, stop + room)


def uploaded(request: ScoreRequest, device: Any) -> DeviceQueries:
    """The request's queries, cut to r_q, on the device."""
    r_q = min(request.budget.r_q, request.queries.parts.codes.shape[1])
    codes, scales = request.queries.parts
    lengths = np.minimum(request.queries.lengths, r_q).astype(np.int32)
    parts = Parts(codes[:, :r_q], None if scales is None else scales[:, :r_q])
    return DeviceQueries(
        to_device(parts.codes, device, request.codec.name),
        None if parts.scales is None else to_device(parts.scales, device, "float32"),
        to_device(lengths, device, "int32"),
    )


def to_device(array: NDArray, device: Any, dtype: str) -> Tensor:
    """A copy of a host array; ``bfloat16`` numbers are uint16 in numpy."""
    import torch

    copied = torch.empty(array.shape, dtype=getattr(torch, dtype), pin_memory=torch.device(device).type == "cuda")
    copied.view(torch.uint8).numpy().view(array.dtype).reshape(array.shape)[...] = array
    return copied.to(device, non_blocking=True)


def to_host(array: Any) -> NDArray:
    """An array of numpy as it is, a tensor copied from its device, which is waited for."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu().numpy())


def without_repeats(candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Candidates [B, C] in any order, of each row in a list only one; -1 in place of the others."""
    ordered = np.sort(candidates, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    return ordered


def _halves(request: ScoreRequest) -> Iterator[ScoreRequest]:
    middle = len(request.queries) // 2
    for half in (slice(None, middle), slice(middle, None)):
        candidates = request.candidates
        if candidates is not None and len(candidates) > 1:
            candidates = candidates[half]
        yield replace(request, queries=request.queries[half], candidates=candidates)


def _fill(target: Any, found: Tensor | None) -> None:
    assert found is not None
    if isinstance(target, np.ndarray):
        target[...] = to_host(found)
    else:
        target.copy_(found)
