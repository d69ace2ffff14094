"""Questions that many ask: is this an integer within bounds, is this a torch tensor, how many cores are there."""

from __future__ import annotations

import numbers
import operator
import os
from typing import Any

LARGEST = 2**31 - 1


def integer(name: str, value: Any, least: int = 1, most: int = LARGEST) -> int:
    """``value`` as an integer between ``least`` and ``most``.

    Raises:
        TypeError, ValueError: it is none, or out of bounds; the message starts with ``name``.
    """
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r} of type {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    if number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}")
    return number


def is_number(value: Any) -> bool:
    """Whether ``value`` is a real number, of Python or numpy; ``True`` and ``False`` are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def ignores(missing: str) -> bool:
    """What a ``missing`` argument says. Raises ValueError."""
    if missing not in ("raise", "ignore"):
        raise ValueError(f"missing: expected 'raise' or 'ignore', got {missing!r}")
    return missing == "ignore"


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor, told by its class: torch is optional and slow to import."""
    return any(base.__module__.split(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def usable_cores() -> int:
    """How many processors this process may use: a container or taskset may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
