"""Every error metaindex raises on purpose: one base, few leaves.

Each leaf also derives from the built-in class that a caller would reach for (a wrong shape is a ``ValueError``, an unknown
id a ``KeyError``), so code that knows nothing of metaindex still catches the right thing. Wrong types raise plain
``TypeError`` and numbers out of bounds plain ``ValueError``.
"""

from __future__ import annotations


class MetaIndexError(Exception):
    """Base of all errors that metaindex raises on purpose."""


class ShapeError(MetaIndexError, ValueError):
    """An array has the wrong rank, length or dimension."""


class NonFiniteError(MetaIndexError, ValueError):
    """A vector holds NaN, infinity, or a value that the codec can't represent."""


class DuplicateIdError(MetaIndexError, ValueError):
    """An id was given twice, or stands in the index already."""


class UnknownIdError(MetaIndexError, KeyError):
    """An id does not stand in the index."""

    def __str__(self) -> str:
        # KeyError prints the repr of its message, which would show quotes and escapes around a sentence.
        return str(self.args[0]) if self.args else ""


class FilterError(MetaIndexError, ValueError):
    """A filter names something that can't be filtered by."""


class EncoderMismatchError(MetaIndexError, ValueError):
    """The index holds vectors of another encoder."""


class PlanError(MetaIndexError, ValueError):
    """A plan does not parse, or can't run on this index."""


class BackendError(MetaIndexError, RuntimeError):
    """The scorer that was asked for can't serve the request; the message says why."""


class ClosedError(MetaIndexError, ValueError):
    """The index was used after ``close()``."""


class ReadOnlyError(MetaIndexError, PermissionError):
    """The index was opened for reading, or takes no more writes since a sync failed; the message says which."""


class ForkedProcessError(MetaIndexError, RuntimeError):
    """A child process used a handle that its parent opened for what only the parent can do."""


class IndexLockedError(MetaIndexError, BlockingIOError):
    """Another process, or another handle of this one, is writing to this index, or reads what is to be replaced or purged."""


class NotAnIndexError(MetaIndexError, ValueError):
    """The path exists and is no metaindex index."""


class UnsupportedFormatError(MetaIndexError, ValueError):
    """The index was written in a format this version does not read."""


class CorruptIndexError(MetaIndexError, RuntimeError):
    """A file of the index is missing, truncated or changed."""


class CapacityError(MetaIndexError, MemoryError):
    """Vectors don't fit into the memory that they may take: ``needed`` and ``free`` are bytes, ``advice`` says what helps."""

    def __init__(self, what: str, needed: int, free: int, advice: str) -> None:
        super().__init__(what, needed, free, advice)
        self.what, self.needed, self.free, self.advice = what, needed, free, advice

    def __str__(self) -> str:
        return f"{self.what}: {self.needed:,} bytes are needed, {self.free:,} are free; {self.advice}"


class MissingDependencyError(MetaIndexError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
