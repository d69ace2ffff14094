"""The two questions that every door asks: is this an integer within bounds, and is this a torch tensor."""

from __future__ import annotations

import operator
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


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor, told by its class: torch is optional and slow to import."""
    return any(base.__module__.split(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)
