"""A search that is prepared once and replayed: on a GPU one CUDA graph, whose queries are new each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metaindex.device.encode import encode, normalized
from metaindex.device.operations import DeviceQueries
from metaindex.errors import BackendError, ShapeError
from metaindex.execution.executor import Search, useful
from metaindex.planning.plan import Step as PlanStep
from metaindex.scoring.device import DeviceScorer, Step

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UPS = 3


def captured(search: Search, steps: Sequence[PlanStep], k: int) -> CapturedSearch:
    """``steps`` prepared for queries of the shape of those in ``search``.

    Raises:
        BackendError: the scorer of a step works on the CPU, or the index's memory is limited.
    """
    steps = useful(steps, search.available)
    if steps[0].coarse is not None:
        raise BackendError("capture: a coarse stage can't be captured; give a plan that begins with a budget, such as (1,1)")
    first, *_ = [_on_device(search, step, k) for step in steps]
    if search.snapshot.memory is not None:
        raise BackendError("capture: the vectors of this index are read from disk under a memory_limit; open it without one")
    return CapturedSearch(first, search, steps, k)


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

    It goes on to search the documents that stood when it was made.
    """

    def __init__(self, scorer: DeviceScorer, search: Search, steps: Sequence[PlanStep], k: int) -> None:
        import torch

        residency, snapshot = scorer.residency, search.snapshot
        device, shape = residency.device, search.queries.parts.codes.shape
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
        allow = None if snapshot.alive is None else torch.as_tensor(snapshot.alive, device=device)
        tables = [residency.table(view.snapshot, view.codec, dim, step.budget.r_c) for view, step in zip(views, steps)]
        lengths = [torch.full((batch,), step.budget.r_q, dtype=torch.int32, device=device) for step in steps]
        keeps = [*(min(step.keep, len(snapshot)) for step in steps[:-1]), k]

        def again() -> tuple[Tensor, Tensor]:
            self._encode()
            rows: Tensor | None = None
            for step, view, table, count, keep in zip(steps, views, tables, lengths, keeps):
                queries = DeviceQueries(*self._cut(view.codec.name, step.budget.r_q), count)
                found = Step(scorer.operations, table, queries, step.budget.r_c, rows, allow if rows is None else None)
                scores, rows = found.best(keep)
            assert rows is not None
            return scores, rows

        self._residency, self._tables = residency, tables
        self._held = lengths, allow  # what the graph reads besides
        self._replay, self.scores, self.rows = _captured(again, device)

    def _encode(self) -> None:
        for codec, (codes, scales) in self._encoded.items():
            tokens = self.queries[:, : codes.shape[1]]
            encode(codec, normalized(tokens) if self._normalize else tokens, codes, scales)

    def _cut(self, codec: str, r_q: int) -> tuple[Tensor, Tensor | None]:
        codes, scales = self._encoded[codec]
        return codes[:, :r_q].contiguous(), None if scales is None else scales[:, :r_q].contiguous()

    def __call__(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ShapeError: not of the shape that was captured."""
        if tuple(queries.shape) != tuple(self.queries.shape):
            raise ShapeError(f"queries: expected {tuple(self.queries.shape)}, as captured, got {tuple(queries.shape)}")
        self.queries.copy_(queries, non_blocking=True)
        self._replay()
        self._residency.queued(*self._tables)
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
    with torch.cuda.stream(stream):  # kernels are compiled and tables uploaded before anything is captured
        for _ in range(_WARM_UPS):
            search()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        scores, rows = search()
    return graph.replay, scores, rows
