"""Which levels of which segments lie on the device, and which in pinned host memory, where kernels read them over the bus.

Levels never change, so one that was placed stays where it is until its segment goes or a shallower level needs its room.
What leaves is freed once the searches that read it are done, on whatever stream they run: torch's allocator knows only the
stream that a tensor was made on, and of pinned memory that kernels read it knows nothing.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from metaindex.cached import cached_property
from metaindex.checks import integer
from metaindex.codecs import Codec
from metaindex.device.pinned import pinned
from metaindex.device.table import DeviceTable, Placed, order_of_addition
from metaindex.errors import CapacityError
from metaindex.storage.segment import Level
from metaindex.storage.snapshot import Snapshot

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Placement: TypeAlias = 'Literal["auto", "device", "host"] | int'
WORKING_BYTES = 256 << 20
"""What a search may take besides its answer, on the device as elsewhere; kept free of levels."""
_STAGING_BYTES = 32 << 20
_LOOK_SECONDS = 10.0  # between looks for room, which ask the driver
_RESERVE_BYTES = 512 << 20  # torch's allocator rounds up, and the CUDA context grows


def checked_placement(placement: Any) -> Placement:
    """A ``placement`` argument. Raises ValueError or TypeError."""
    if isinstance(placement, str):
        if placement not in ("auto", "device", "host"):
            raise ValueError(f"placement: expected 'auto', 'device', 'host' or a token edge, got {placement!r}")
        return placement  # type: ignore[return-value]
    return integer("placement", placement, least=0)


class Residency:
    """The levels of one index that are placed for one device.

    Args:
        device: the name of a torch device; the CPU stands in for a GPU where kernels are interpreted.
        limit: the most bytes of levels on the device; by default what is free there, less what searches work with.
        placement: "auto": on the device while there is room, shallow levels first, the rest in pinned host memory; "device": on
            the device or CapacityError; "host": all in pinned memory; a number: tokens below that edge on the device or
            CapacityError, the rest in pinned memory.
    """

    def __init__(self, device: str = "cpu", limit: int | None = None, placement: Placement = "auto") -> None:
        self.name, self.limit, self.placement = device, limit, placement
        self._placed: WeakKeyDictionary[Level, Placed] = WeakKeyDictionary()
        self._living: WeakSet[Placed] = WeakSet()  # besides those that are placed, what tables still hold
        self._tables: WeakKeyDictionary[Snapshot, dict[int, DeviceTable]] = WeakKeyDictionary()
        self._running: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._lock = threading.RLock()
        self._look = 0.0
        weakref.finalize(self, _wait_for, self._running).atexit = False

    @cached_property
    def device(self) -> torch.device:
        import torch

        return torch.device(self.name)

    def table(self, snapshot: Snapshot, codec: Codec, dim: int, r_c: int) -> DeviceTable:
        """The table for a budget's levels, which are placed first.

        Raises:
            CapacityError: they fit neither where ``placement`` says nor, where it leaves that open, into host memory.
        """
        needed = snapshot.levels.needed(r_c)
        with self._lock:
            self._let_go()
            self._move_back()
            found = self._tables.get(snapshot, {}).get(needed)
            if found is None:
                found = self._table(snapshot, codec, dim, needed)
                self._tables.setdefault(snapshot, {})[needed] = found  # placing levels may have cleared all tables
            return found

    def queued(self, *read: Any) -> Any:
        """Work that reads tables and tensors was queued on torch's current stream: they are held until it is done.

        Returns the event that then comes; ``None`` where work is done at once.
        """
        event = self._event()
        if event is not None:
            with self._lock:
                self._running.append((event, read))
                self._let_go()
        return event

    def _let_go(self) -> None:
        while self._running and self._running[0][0].query():
            self._running.popleft()

    def _event(self) -> Any:
        """One that comes when the work queued so far on the current stream is done; ``None`` where work is done at once."""
        if self.device.type != "cuda":
            return None
        import torch

        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _retire(self) -> None:
        """Let go of all tables, once nobody reads them."""
        self._tables.clear()
        _wait_for(self._running)

    def _move_back(self) -> None:
        """Now and then: tables with a level that had to go to pinned memory, but would fit on the device by now, are made anew,
        and place it there."""
        now = time.monotonic()
        if now < self._look:
            return
        self._look = now + _LOOK_SECONDS
        some = [(tables, needed) for tables in self._tables.values() for needed, table in tables.items() if not table.resident]
        room = self._room() if some else 0
        for tables, needed in some:
            if any(not placed.resident and self._may(placed) and placed.nbytes <= room for placed in tables[needed].held):
                del tables[needed]

    def adopt(self, level: Level, codes: Tensor, scales: Tensor | None = None) -> None:
        """Take tensors that lie on the device already for a level's parts, which are neither read nor copied."""
        with self._lock:
            self._placed[level] = placed = Placed(level.start, codes, scales, resident=True)
            self._living.add(placed)

    def memory(self) -> dict[str, dict[int, int]]:
        """Bytes of levels by place, "device" or "pinned", and first token; with those that only a captured search, or one that
        still runs, holds."""
        found: dict[str, dict[int, int]] = {"device": {}, "pinned": {}}
        with self._lock:
            for placed in self._living:
                at = found["device" if placed.resident else "pinned"]
                at[placed.start] = at.get(placed.start, 0) + placed.nbytes
        return found

    def working_bytes(self) -> tuple[int, int]:
        """What a search needs besides levels, at most, and what is free on the device."""
        if self.device.type != "cuda":
            return WORKING_BYTES, 0
        import torch

        return WORKING_BYTES, int(torch.cuda.mem_get_info(self.device)[0])

    def forget(self) -> None:
        """Let go of everything, as when memory ran out: the next table places levels anew."""
        with self._lock:
            self._placed.clear()
            self._retire()

    def _table(self, snapshot: Snapshot, codec: Codec, dim: int, needed: int) -> DeviceTable:
        shape = (len(snapshot.segments), needed)
        codes, scales = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        held: list[Placed] = []
        resident = True
        for level in range(needed):  # level by level over all segments, so that shallow levels get the device first
            for number, segment in enumerate(snapshot.segments):
                if level < len(segment.levels):
                    placed = self._place(segment.levels[level], codec)
                    codes[number, level] = placed.codes.data_ptr()
                    if placed.scales is not None:
                        scales[number, level] = placed.scales.data_ptr()
                    held.append(placed)
                    resident &= placed.resident
        level_rows = tuple(
            tuple(level.rows for level in segment.levels[:needed]) + (0,) * (needed - len(segment.levels))
            for segment in snapshot.segments
        )
        starts = np.array([snapshot.levels.start(level) for level in range(needed)], np.int32)
        widths = np.array([snapshot.levels.width(level) for level in range(needed)], np.int32)
        token_levels = np.repeat(np.arange(needed, dtype=np.int32), widths)
        within = np.arange(len(token_levels)) - starts[token_levels]
        token_codes = codes[:, token_levels] + within * dim * codec.dtype.itemsize
        token_scales = scales[:, token_levels] + within * np.dtype(np.float32).itemsize
        order = order_of_addition(snapshot)
        others = list(self._tables.get(snapshot, {}).values())
        lengths = np.concatenate([segment.lengths for segment in snapshot.segments] or [np.empty(0, np.int32)])
        return DeviceTable(
            codec=codec.name,
            dim=dim,
            rows=snapshot.rows,
            codes=self._small(codes),
            scales=self._small(scales) if codec.scaled else None,
            first_rows=self._small(snapshot.first_rows),
            lengths=self._small(lengths),
            starts=self._small(starts),
            widths=self._small(widths),
            token_levels=self._small(token_levels),
            token_codes=self._small(token_codes),
            token_scales=self._small(token_scales) if codec.scaled else None,
            token_widths=self._small(widths[token_levels]),
            places=None if order is None else self._small(order[0]),
            rows_at=None if order is None else self._small(order[1]),
            alive=others[0].alive if others else None if snapshot.alive is None else self._small(snapshot.alive),
            shape=(tuple(starts.tolist()), tuple(widths.tolist())),
            level_rows=level_rows,
            full=snapshot.shortest >= len(token_levels),
            segment_rows=tuple(segment.rows for segment in snapshot.segments),
            held=tuple(held),
            resident=resident,
        )

    def _small(self, array: NDArray) -> Tensor:
        import torch

        return torch.tensor(np.ascontiguousarray(array), device=self.device)  # kernels take rows to be dense

    def _place(self, level: Level, codec: Codec) -> Placed:
        placed = self._placed.get(level)
        if placed is None or (not placed.resident and self._may(level) and level.nbytes <= self._room()):
            placed = self._placed[level] = self._newly_placed(level, codec)
            self._living.add(placed)
        return placed

    def _must(self, level: Level | Placed) -> bool:
        return self.placement == "device" or (isinstance(self.placement, int) and level.start < self.placement)

    def _may(self, level: Level | Placed) -> bool:
        """Whether a level is to lie on the device where there is room."""
        return self.placement == "auto" or self._must(level)

    def _newly_placed(self, level: Level, codec: Codec) -> Placed:
        import torch

        while self._may(level):
            if self._make_room(level):
                try:
                    return self._copied(level, codec, resident=True)
                except torch.OutOfMemoryError:
                    pass  # something else on the device took what was free
            if not self._running:
                break
            _wait_for(self._running)  # searches of before hold levels that are gone; then once more
        if self._must(level):
            free = max(0, self._room())
            advice = "raise device_memory_limit, or use placement='auto', which leaves deep levels in host memory"
            raise CapacityError(f"device memory for tokens {level.start} on", level.nbytes, free, advice)
        try:
            return self._copied(level, codec, resident=False)
        except RuntimeError as error:  # what torch raises where no memory can be pinned
            reason = str(error).splitlines()[0]
            advice = f"host memory could not be pinned ({reason}); open the index with memory_limit=, or on the CPU"
            raise CapacityError(f"pinned memory for tokens {level.start} on", level.nbytes, 0, advice) from None

    def _limit(self) -> int:
        if self.limit is not None:
            return self.limit
        if self.device.type != "cuda":
            return 2**63 - 1
        import torch

        free, _ = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(self._used() + free + cached - WORKING_BYTES - _RESERVE_BYTES)

    def _used(self) -> int:
        return sum(placed.nbytes for placed in self._living if placed.resident)

    def _room(self) -> int:
        return self._limit() - self._used()

    def _make_room(self, level: Level) -> bool:
        """Whether ``level`` fits on the device, after deeper levels have left it where that helps."""
        room = self._room()
        if level.nbytes <= room:
            return True
        deeper = [other for other, placed in self._placed.items() if placed.resident and placed.start > level.start]
        if isinstance(self.placement, int):
            deeper = [other for other in deeper if other.start >= self.placement]
        if level.nbytes > room + sum(other.nbytes for other in deeper):
            return False
        deeper.sort(key=lambda other: other.start)
        while deeper and level.nbytes > room:
            while deeper and level.nbytes > room:
                room += self._placed.pop(deeper.pop()).nbytes  # its next search places it again
            self._retire()  # tables hold what has to go
            room = self._room()  # captured searches keep theirs
        return level.nbytes <= room

    def _copied(self, level: Level, codec: Codec, *, resident: bool) -> Placed:
        codes, scales = level.parts
        copied = self._copy(codes, codec.name, resident)
        return Placed(level.start, copied, None if scales is None else self._copy(scales, "float32", resident), resident)

    def _copy(self, array: NDArray, kind: str, resident: bool) -> Tensor:
        import torch

        dtype = getattr(torch, kind)
        if self.device.type != "cuda" or not resident:
            there = pinned(array.nbytes, self.device)
            np.copyto(there.numpy().view(array.dtype).reshape(array.shape), array)
            return there.view(dtype).view(array.shape)
        target = torch.empty(array.shape, dtype=dtype, device=self.device)
        self._upload(array, target.view(torch.uint8).reshape(-1))
        return target

    def _upload(self, array: NDArray, target: Tensor) -> None:
        """Copy through two pinned buffers, so that one is filled while the other travels."""
        import torch

        data = array.reshape(-1).view(np.uint8)
        size = min(_STAGING_BYTES, len(data))
        buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        gone = [torch.cuda.Event() for _ in buffers]  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self.device)
        for number, start in enumerate(range(0, len(data), max(1, size))):
            buffer, event = buffers[number % 2], gone[number % 2]
            event.synchronize()
            piece = data[start : start + size]
            buffer.numpy()[: len(piece)] = piece
            target[start : start + len(piece)].copy_(buffer[: len(piece)], non_blocking=True)
            event.record(stream)
        stream.synchronize()  # the level may be used on any stream from here on


def _wait_for(running: deque[tuple[Any, tuple[Any, ...]]]) -> None:
    """Let go of what searches read once they are done. Freed earlier, its memory could go to somebody else's work."""
    while running:
        running[0][0].synchronize()
        running.popleft()
