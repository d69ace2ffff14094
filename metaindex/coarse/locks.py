"""A lock that many share to read and one has alone to write."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """Who waits for it alone goes before those who come to share it later, or searches without a pause would keep it out.

    In a forked child nobody holds it; ``cut_off`` tells there that a thread of the parent had it alone.
    """

    def __init__(self) -> None:
        self.cut_off = False
        self._new()
        _locks.add(self)

    def _new(self) -> None:
        self._changed = threading.Condition()
        self._sharing = self._waiting = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._sharing)
                self._alone = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _after_fork(self) -> None:
        self.cut_off |= self._alone
        self._new()


_locks: weakref.WeakSet[SharedLock] = weakref.WeakSet()


def _forget_threads() -> None:
    for lock in list(_locks):
        lock._after_fork()


os.register_at_fork(after_in_child=_forget_threads)
