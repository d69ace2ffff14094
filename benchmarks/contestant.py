"""What takes part in the race: a name, how it keeps documents, and a search to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case
from benchmarks.problem import Answer, Problem

Search = Callable[[], Answer]
Option = TypeVar("Option")


class Contestant(Protocol):
    """One way to search. ``prepare`` packs the documents, which is not timed; the search it returns is."""

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str:
        """The distribution whose version stands beside the result."""

    @property
    def codec(self) -> str:
        """How the documents' numbers are kept: what bytes and which arithmetic its roof is made of."""

    @property
    def ours(self) -> bool: ...

    @property
    def our_encoding(self) -> bool:
        """Whether what it keeps is what metaindex.codecs makes, so that its error on decoded values can be told."""

    @property
    def how(self) -> str:
        """The entry point used, in a line."""

    def serves(self, case: Case) -> bool: ...

    def prepare(self, problem: Problem) -> Search: ...


@dataclass(frozen=True)
class Peer:
    """Another library, as a value."""

    name: str
    package: str
    codec: str
    how: str
    prepare: Callable[[Problem], Search]
    serves: Callable[[Case], bool] = lambda case: True
    ours: bool = False
    our_encoding: bool = True


def fastest(options: Iterable[Option], run: Callable[[Option], object]) -> Option:
    """The option that takes the least time: every library gets the chunk size that suits it here."""
    tried = list(options)
    run(tried[0])  # wakes threads and touches memory, which no option should pay for

    def seconds(option: Option) -> float:
        start = time.perf_counter()
        run(option)
        return time.perf_counter() - start

    return min(tried, key=seconds)


def best(problem: Problem, scores: NDArray) -> Answer:
    """The k best by numpy, of scores [B, n] over the scored documents."""
    k = min(problem.case.k, scores.shape[1])
    places = np.argpartition(scores, -k, axis=1)[:, -k:]
    found = np.take_along_axis(scores, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return Answer(np.take_along_axis(found, order, axis=1), problem.rows(np.take_along_axis(places, order, axis=1)))
