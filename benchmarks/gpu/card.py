"""The GPU as a stopwatch: time by its own events, the cache emptied, memory at its peak, calls replayed as graphs.

``DryCard`` is a CPU that stands in for it, so that everything around the measurement can be tested without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from metaindex.timing import wall_seconds

Call = Callable[[], Any]
_FLUSHES = 4  # this many times its size is written over the L2 cache, whose sets don't fill evenly


class Card:
    """The first GPU that torch sees."""

    turn_seconds = 0.2  # of a contestant, before the next one's

    def __init__(self) -> None:
        self.device = torch.device("cuda:0")
        self.properties = torch.cuda.get_device_properties(self.device)
        self.cache_bytes = int(self.properties.L2_cache_size)
        self._filler = torch.empty(_FLUSHES * self.cache_bytes, dtype=torch.uint8, device=self.device)
        torch.backends.cuda.matmul.allow_tf32 = False
        # What every process pays once, whoever comes first: the libraries of matrix products, the allocator.
        some = torch.ones((64, 64), dtype=torch.float16, device=self.device)
        (some @ some).sum().item()

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def flush(self) -> None:
        self._filler.zero_()

    def seconds(self, call: Call) -> float:
        """How long the device takes from the first thing that ``call`` queues to the last."""
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    def cold_seconds(self, call: Call) -> float:
        """``seconds``, with nothing of use in the L2 cache."""
        self.flush()
        return self.seconds(call)

    def wall_seconds(self, call: Call) -> float:
        """What a caller waits: from an idle device, with a cold cache, until the result is there."""
        self.flush()
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def free_bytes(self) -> int:
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.device)[0])

    def extra_bytes(self, call: Call) -> int | None:
        """What ``call`` takes of the device's memory at its peak, its answer included."""
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        answer = call()
        self.wait()
        del answer
        return int(torch.cuda.max_memory_allocated(self.device) - before)

    def replay(self, call: Call) -> Call:
        """``call`` as a CUDA graph."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            held = call()

        def run() -> Any:
            graph.replay()
            return held

        return run

    def healthy(self) -> bool:
        """Whether the process can still use the device: after a wild read by anyone it can't."""
        try:
            self.wait()
            return bool(torch.ones(1, device=self.device).item() == 1)
        except Exception:  # torch raises several classes here, all of which mean no
            return False


class DryCard:
    """The CPU in place of a GPU: everything runs, no number means anything."""

    cache_bytes = 0
    turn_seconds = 0.0

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def wait(self) -> None: ...

    def flush(self) -> None: ...

    def seconds(self, call: Call) -> float:
        return wall_seconds(call)

    cold_seconds = wall_seconds = seconds

    def free_bytes(self) -> int:
        return 1 << 30

    def extra_bytes(self, call: Call) -> int | None:
        call()
        return None

    def replay(self, call: Call) -> Call:
        return call

    def healthy(self) -> bool:
        return True


AnyCard = Card | DryCard


def card(dry: bool) -> AnyCard:
    return DryCard() if dry else Card()
