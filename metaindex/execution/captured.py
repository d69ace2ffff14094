"""A search that is prepared once and replayed: on a GPU one CUDA graph, whose queries are new each time."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from metaindex.device.encode import encode, normalized
from metaindex.device.operations import DeviceQueries
from metaindex.errors import BackendError, ShapeError
from metaindex.execution.executor import Search, batches_of, useful
from metaindex.planning.plan import Step as PlanStep
from metaindex.scoring.device import DeviceScorer, Step

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UPS = 3
_capturing = threading.Lock()


def captured(search: Search, steps: Sequence[PlanStep], k: int) -> CapturedSearch:
    """``steps`` prepared for queries of the shape of those in ``search``.

    Raises:
        BackendError: the scorer of a step works on the CPU, or the index's memory is limited.
        CapacityError: the memory of the device is exhausted, and a new placement of levels does not help.
    """
    steps = useful(steps, search.available)
    if steps[0].coarse is not None:
        raise BackendError("capture: a coarse stage can't be captured; give a plan that begins with a budget, such as (1,1)")
    first, *_ = [_on_device(search, step, k) for step in steps]
    if search.snapshot.memory is not None:
        raise BackendError("capture: the vectors of this index are read from disk under a memory_limit; open it without one")
    try:
        return CapturedSearch(first, search, steps, k)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
    if first.residency.device.type == "cuda":  # what failed is free again now that its frames are gone
        import torch

        torch.cuda.empty_cache()
    first.residency.forget()
    try:
        return CapturedSearch(first, search, steps, k)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        raise first.exhausted(error) from None


def _out_of_memory(error: RuntimeError) -> bool:
    """Also where a capture could not be ended for it."""
    import torch

    return any(isinstance(one, torch.OutOfMemoryError) for one in (error, error.__context__))


def _on_device(search: Search, step: PlanStep, k: int) -> DeviceScorer:
    request = search.of(step).request(step.budget, None, k)
    scorer = search.registry.choose(request, search.scorer).scorer
    if not isinstance(scorer, DeviceScorer):
        raise BackendError(f"capture: only searches on a GPU can be captured, and the scorer is {scorer.name!r}")
    return scorer


class CapturedSearch:
    """A search of one shape on one snapshot, ready to be replayed; made by ``MetaIndex.capture``.

    Call it with queries, a tensor [B, R, d] of floats on the index's device, for ``scores`` float32 [B, k] and ``rows`` int64
    [B, k] there: tensors that the next call overwrites. Work runs on torch's current stream, and nothing waits for it.
    ``ids(rows)`` gives the ids of rows. Numbers are not looked at: NaN in a query makes its scores -inf.

    It goes on to search the documents that stood when it was made. It is not for two threads at a time. Calls may be on
    different streams: each comes after the one before, but what reads an answer on another stream has to be done, or waited
    for by the stream, before the next call.

    As long as it lives it takes the device memory that its search works with, up to 256 MiB besides the answer, and keeps
    the levels that it reads. Making it runs the search a few times and waits for the device.
    """

    def __init__(self, scorer: DeviceScorer, search: Search, steps: Sequence[PlanStep], k: int) -> None:
        import torch

        residency, snapshot = scorer.residency, search.snapshot
        device, shape = residency.device, tuple(search.queries.parts.codes.shape)
        batch, _, dim = shape
        self._ids_at, self._normalize = snapshot.ids_at, search.schema.normalize
        self.queries = torch.zeros(shape, dtype=torch.float32, device=device)
        views = [search.of(step) for step in steps]
        r_q = max(step.budget.r_q for step in steps)
        self._encoded = {
            codec.name: (
                torch.zeros((batch, r_q, dim), dtype=getattr(torch, codec.name), device=device),
                torch.zeros((batch, r_q), dtype=torch.float32, device=device) if codec.scaled else None,
            )
            for codec in (view.codec for view in views)
        }
        tables = [residency.table(view.snapshot, view.codec, dim, step.budget.r_c) for view, step in zip(views, steps)]
        lengths = [torch.full((batch,), step.budget.r_q, dtype=torch.int32, device=device) for step in steps]
        keeps = [max(1, min(keep, search.available)) for keep in (*(step.keep for step in steps[:-1]), k)]
        batches = list(batches_of(search, max(keeps)))

        def part(of: slice) -> tuple[Tensor, Tensor]:
            rows: Tensor | None = None
            for step, view, table, count, keep in zip(steps, views, tables, lengths, keeps):
                queries = DeviceQueries(*self._cut(view.codec.name, of, step.budget.r_q), count[of])
                found = Step(scorer.operations, table, queries, step.budget.r_c, rows, table.alive if rows is None else None)
                scores, rows = found.best(keep)
            assert rows is not None
            return scores, rows

        def again() -> tuple[Tensor, Tensor]:
            self._encode()
            found = [part(of) for of in batches]
            scores, rows = (torch.cat(each) if len(batches) > 1 else each[0] for each in zip(*found))
            missing = (0, k - keeps[-1])
            pad = torch.nn.functional.pad
            return pad(scores, missing, value=-torch.inf), pad(rows, missing, value=-1)

        self._residency = residency
        self._last: Any = None  # the event that comes when the last call is done
        self._replay, self.scores, self.rows = _captured(again, device)
        # What a call reads and writes: it may still run when this object, or the index, is gone.
        self._used = (*tables, *lengths, self.queries, self._encoded, self._replay, self.scores, self.rows)

    def _encode(self) -> None:
        for codec, (codes, scales) in self._encoded.items():
            tokens = self.queries[:, : codes.shape[1]]
            encode(codec, normalized(tokens) if self._normalize else tokens, codes, scales)

    def _cut(self, codec: str, of: slice, r_q: int) -> tuple[Tensor, Tensor | None]:
        import torch

        def cut(whole: Tensor) -> Tensor:
            part = whole[of, :r_q]  # copied, since kernels want its address aligned
            return whole if part.shape == whole.shape else part.clone(memory_format=torch.contiguous_format)

        codes, scales = self._encoded[codec]
        return cut(codes), None if scales is None else cut(scales)

    def __call__(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ShapeError: not of the shape that was captured."""
        if tuple(queries.shape) != tuple(self.queries.shape):
            raise ShapeError(f"queries: expected {tuple(self.queries.shape)}, as captured, got {tuple(queries.shape)}")
        if self._last is not None:  # it may be on another stream, and these queries take the place of those it reads
            import torch

            torch.cuda.current_stream(self._residency.device).wait_event(self._last)
        self.queries.copy_(queries, non_blocking=True)
        self._replay()
        self._last = self._residency.queued(*self._used)
        return self.scores, self.rows

    def ids(self, rows: Tensor) -> Any:
        """The ids of ``rows``, as ``search`` gives them; waits for the device."""
        host = rows.cpu().numpy()
        ids = self._ids_at(np.maximum(host, 0))
        ids[host < 0] = None if ids.dtype == object else -1
        return ids


def _captured(search: Callable[[], tuple[Tensor, Tensor]], device: Any) -> tuple[Callable[[], None], Tensor, Tensor]:
    """``search`` as a graph to replay and the tensors that it fills; without a GPU it is called anew each time."""
    import torch

    if device.type != "cuda":
        scores, rows = search()

        def replay() -> None:
            for target, found in zip((scores, rows), search()):
                target.copy_(found)

        return replay, scores, rows
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):  # kernels are compiled and tables uploaded before anything is captured
            for _ in range(_WARM_UPS):
                search()
    finally:
        stream.synchronize()  # what it reads and writes may be freed, and taken by others, after a failure
    graph = torch.cuda.CUDAGraph()
    # Other threads may do as they like. The stream by itself, since torch's graph, if it can't be ended, leaves it current.
    capture = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
    with _capturing, _no_collection(), torch.cuda.stream(stream), capture:
        scores, rows = search()
    return graph.replay, scores, rows


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection: what it finalizes in this thread may wait for the device, which ends a capture."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
