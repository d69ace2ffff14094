"""How large an index becomes: bytes of tokens, level by level, from numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

from metaindex.codecs import Bands, Codec
from metaindex.types import Levels

# Ids, lengths, order of addition and the catalog's row, for integer ids without metadata.
DOCUMENT_BYTES = 64


@dataclass(frozen=True)
class SizeEstimate:
    """Bytes that ``documents`` take. ``levels``: (first token, end, bytes) of each level. ``per_document``: at most this many
    bytes of ids, lengths and catalog for each document with an integer id and no metadata. ``early``: the codec of the early
    copy, if there is to be one, whose bytes for all levels are ``copy``."""

    documents: int
    codec: str
    levels: tuple[tuple[int, int, int], ...]
    per_document: int = DOCUMENT_BYTES
    early: str | None = None
    copy: int = 0

    @property
    def vectors(self) -> int:
        """Bytes of codes and scales over all levels, and of their early copy."""
        return sum(nbytes for _, _, nbytes in self.levels) + self.copy

    @property
    def total(self) -> int:
        return self.vectors + self.documents * self.per_document

    def __str__(self) -> str:
        lines = [f"{self.documents:,} documents, {self.codec}"]
        running = 0
        for start, stop, nbytes in self.levels:
            running += nbytes
            lines.append(
                f"  tokens {start:>3} to {stop - 1:>3}  {human(nbytes):>10}   budgets up to {stop:>3} read {human(running):>10}"
            )
        if self.early is not None:
            lines.append(f"  {f'early copy, {self.early}':<15} {human(self.copy):>10}")
        lines.append(f"  ids, catalog    {human(self.documents * self.per_document):>10}   at most")
        lines.append(f"  total           {human(self.total):>10}")
        return "\n".join(lines)


def estimate(documents: int, levels: Levels, dim: int, bands: Bands, early: Codec | None = None) -> SizeEstimate:
    """What ``documents`` of ``levels.tokens`` tokens each take, in codecs whose edges are edges of ``levels``."""
    sizes = (
        (levels.start(l), levels.stop(l), documents * levels.width(l) * bands.at(levels.start(l)).bytes_per_token(dim))
        for l in range(len(levels))
    )
    copy = 0 if early is None else documents * levels.tokens * early.bytes_per_token(dim)
    return SizeEstimate(documents, str(bands), tuple(sizes), early=None if early is None else early.name, copy=copy)


def human(nbytes: float) -> str:
    """Bytes in the largest unit of 1,024 that leaves a number of at least one."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:,.0f} {unit}" if unit == "bytes" else f"{nbytes:,.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:,.1f} TiB"
