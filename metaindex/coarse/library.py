"""FAISS, whichever build of it is installed: imported where it is used, and used with so many threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metaindex.errors import MissingDependencyError

_PROCESS = os.getpid()


def load() -> Any:
    """The module ``faiss``.

    Raises:
        MissingDependencyError: it is not installed, or what it needs is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of SWIG's own types
            import faiss
    except (ImportError, RuntimeError, OSError) as error:  # a missing CUDA library is a RuntimeError
        raise MissingDependencyError(
            f"the coarse stage needs FAISS, which can't be imported ({error}): pip install 'metaindex[faiss]', or a GPU build "
            "of it; searches without it work: plan='(*,*)' is exact"
        ) from None
    return faiss


@contextmanager
def threads(count: int) -> Iterator[Any]:
    """FAISS, at work with ``count`` threads within the block.

    The number belongs to the calling thread, and goes back to what it was. In a forked child it is 1: the OpenMP runtime
    waits there for ever for threads that its parent had.
    """
    faiss = load()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if os.getpid() != _PROCESS else count)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)
