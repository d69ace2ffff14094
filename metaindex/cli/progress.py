"""A progress bar on stderr for long work, silent where stderr is not a terminal.

Written here because the core depends on numpy and safetensors only, and ``build`` needs a bar without any extra.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 28
_SECONDS_BETWEEN = 0.1


class Progress:
    """How much of ``total`` things called ``unit`` is done: ``with Progress(90, "doc", "building") as bar: bar.update(10)``."""

    def __init__(self, total: int, unit: str, description: str, stream: TextIO | None = None) -> None:
        self._total, self._unit, self._description = total, unit, description
        self._stream = sys.stderr if stream is None else stream
        self._visible = self._stream.isatty()
        self._done = 0
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._visible:
            self._show()
            self._stream.write("\n")
            self._stream.flush()

    def update(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN:
            self._show()

    def _show(self) -> None:
        if not self._visible:
            return
        self._shown = time.monotonic()
        # "\x1b[K" clears what a longer line left behind.
        self._stream.write(f"\r{self.line(self._shown - self._started)}\x1b[K")
        self._stream.flush()

    def line(self, seconds: float) -> str:
        """The bar as text, ``seconds`` after the start."""
        share = min(1.0, self._done / self._total) if self._total else 1.0
        full = round(share * _WIDTH)
        if self._done >= self._total:
            clock = f"in {_clock(seconds)}"
        elif self._done:
            clock = f"{_clock(seconds / self._done * (self._total - self._done))} left"
        else:
            clock = ""
        counts = f"{self._done:,}/{self._total:,} {self._unit}"
        return f"{self._description:<20} [{'#' * full}{'.' * (_WIDTH - full)}] {counts} {clock}".rstrip()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
