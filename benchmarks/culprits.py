"""A race goes on without the contestants that bring its process down."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Found = TypeVar("Found")


class Death(NamedTuple):
    """How a process ended that gave no result, and the contestant at work: empty where none was, or none is to blame."""

    why: str
    culprit: str


def without_culprits(attempt: Callable[[dict[str, str]], Found | Death]) -> Found | Death:
    """The first result of ``attempt``, which is given whom to leave out and why, or a death without a new culprit."""
    excluded: dict[str, str] = {}
    while True:
        found = attempt(excluded)
        if not isinstance(found, Death) or not found.culprit or found.culprit in excluded:
            return found
        excluded[found.culprit] = found.why
