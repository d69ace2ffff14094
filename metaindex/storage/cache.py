"""The memory that vectors may take where an index has a limit: levels that stay, and buffers of work that is under way.

A fixed share is for work, the rest for levels, so neither can starve the other. Work asks once for a buffer, waits for it while
it holds none, and gives it back before it asks again: nobody waits who holds what others wait for. Buffers go out in the order
of asking, and each takes half of what is free at most, so that several searches run beside one another.

A level stays once reads of it add up to its size: by then it has cost what keeping it costs. A scan reads all of a level and
keeps it at once; a gather keeps those it comes back to. Level 0 comes first, because every search reads it: a shallower level
takes the place of deeper ones, and nothing else is ever put out. (Last used, first kept would lose every level to the next
scan that is larger than the limit; what stays here is read from memory by each.)
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from metaindex.codecs import Parts
from metaindex.errors import CapacityError
from metaindex.storage.segment import Level

_MOST_WORK = 128 << 20
_MOST_BUFFER = 16 << 20


class VectorMemory:
    """At most ``limit`` bytes of vectors, over all threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._work = min(limit // 4, _MOST_WORK)
        self._share = limit - self._work
        self._read: weakref.WeakKeyDictionary[Level, int] = weakref.WeakKeyDictionary()
        self._kept: weakref.WeakKeyDictionary[Level, Parts] = weakref.WeakKeyDictionary()
        self._forget_threads()
        _memories.add(self)

    def _forget_threads(self) -> None:
        """Nobody works: so it starts, and so it is in a forked child, which has none of its parent's threads."""
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._leased = 0
        self._loading: Counter[Level] = Counter()
        self._users: Counter[Level] = Counter()
        self._put_out: Counter[Level] = Counter()

    def kept(self, level: Level) -> int:
        """How many bytes of a level are in memory."""
        return level.nbytes if level in self._kept else 0

    def make_room(self, nbytes: int) -> None:
        """Let one document of ``nbytes`` pass through, as far as the limit allows; waits for searches that are in the way."""
        with self._changed:
            work = max(self._work, min(nbytes, self.limit))
            self._share = self.limit - work  # no level comes in from here on, and work gets the room when it is free
            self._shrink(self._share)
            self._changed.wait_for(lambda: self._held() <= self._share)
            self._work = work
            self._changed.notify_all()

    @contextmanager
    def lease(self, least: int, wanted: int) -> Iterator[int]:
        """Between ``least`` and ``wanted`` bytes for a buffer, as soon as others have given back enough.

        Raises:
            CapacityError: ``least`` is more than there is for work.
        """
        if least > self._work:
            raise CapacityError(
                "memory_limit",
                least,
                self._work,
                f"vectors pass through it document by document; open the index with memory_limit={least} or more",
            )
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._work - self._leased >= least)
                free = self._work - self._leased
                granted = min(max(wanted, least), max(least, min(free // 2, _MOST_BUFFER)))
                self._leased += granted
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield granted
        finally:
            with self._changed:
                self._leased -= granted
                self._changed.notify_all()

    @contextmanager
    def using(self, reads: Mapping[Level, int]) -> Iterator[dict[Level, Parts]]:
        """Those of the levels that are in memory; they stay there until the block ends. Never waits.

        ``reads``: how many bytes of each level the block would have to read.
        """
        found: dict[Level, Parts] = {}
        try:
            for level in sorted(reads, key=lambda level: level.start):
                parts = self._take(level, reads[level])
                if parts is not None:
                    found[level] = parts
            yield found
        finally:
            with self._changed:
                for level in found:
                    self._users[level] -= 1
                    if not self._users[level]:
                        del self._users[level]
                        self._put_out.pop(level, None)
                self._changed.notify_all()

    def _take(self, level: Level, nbytes: int) -> Parts | None:
        with self._changed:
            if level in self._kept:
                self._users[level] += 1
                return self._kept[level]
            self._read[level] = read = self._read.get(level, 0) + nbytes
            if read < level.nbytes or level in self._loading or not self._admit(level):
                return None
            self._loading[level] = level.nbytes
        try:
            assert level.reader is not None
            parts = level.reader.whole(level.rows)
        finally:
            with self._changed:
                del self._loading[level]
                self._changed.notify_all()
        with self._changed:
            self._users[level] += 1
            if self._held() + level.nbytes <= self._share:
                self._kept[level] = parts
            else:  # the share for work grew meanwhile
                self._put_out[level] = level.nbytes
            return parts

    def _held(self) -> int:
        kept = sum(level.nbytes for level in self._kept)
        return kept + sum(self._loading.values()) + sum(self._put_out.values())

    def _admit(self, level: Level) -> bool:
        """Whether there is room for a level, when deeper ones that nobody uses are put out."""
        room = self._share - level.nbytes
        deeper = sum(each.nbytes for each in self._kept if each.start > level.start and not self._users[each])
        if self._held() - deeper > room:
            return False
        self._shrink(room, below=level.start)
        return True

    def _shrink(self, most: int, below: int = -1) -> None:
        """Put out levels below ``below``, the deepest first, until ``most`` bytes are held. Those in use go when that ends."""
        idle = sorted(self._kept, key=lambda level: (not self._users[level], level.start), reverse=True)
        for level in idle:
            if self._held() <= most:
                return
            if level.start > below and (below < 0 or not self._users[level]):
                del self._kept[level]
                if self._users[level]:
                    self._put_out[level] = level.nbytes


_memories: weakref.WeakSet[VectorMemory] = weakref.WeakSet()


def _forget_threads() -> None:
    for memory in list(_memories):
        memory._forget_threads()


os.register_at_fork(after_in_child=_forget_threads)
