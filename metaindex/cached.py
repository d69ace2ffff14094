"""``cached_property`` without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801  the name it has in functools
    """Worked out at first use, then kept in the instance's ``__dict__``.

    That of ``functools`` holds one lock for all instances before Python 3.12. A fork while another thread holds it leaves it
    locked in the child, where nobody lets go of it. Here two threads may work out the same value; the first one is kept.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> cached_property[T] | T:
        if instance is None:
            return self
        value: T = vars(instance).setdefault(self._name, self._function(instance))
        return value
