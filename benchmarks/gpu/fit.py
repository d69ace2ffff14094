"""Fewer documents where a case does not fit the card's memory with everyone's copy of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.gpu.cases import GpuCase
from benchmarks.gpu.contestant import GpuContestant

_WORKING_BYTES = 8 << 30  # what contestants work with: chunks of similarities, copied prefixes, what packing passes through


def fitting(case: GpuCase, contestants: Iterable[GpuContestant], free: int) -> tuple[GpuCase, str]:
    """The case with as many of its documents as fit into ``free`` bytes, and what to say of it: nothing where all do."""
    present = [one for one in contestants if one.why_not(case) is None]
    room = free - min(_WORKING_BYTES, free // 8)
    fitted = case
    while (needed := bytes_of(fitted, present)) > room:
        fewer = int(fitted.documents * min(room / needed, 0.99))
        fitted = replace(fitted, documents=fewer - fewer % 1000 if fewer > 2000 else fewer)
        if fitted.documents < max(2, case.scored if case.candidates else 2):
            raise MemoryError(f"{case.name}: not even a few documents fit into {free:,} bytes")
    if fitted is case:
        return case, ""
    asked = f"{case.documents:,} documents take {bytes_of(case, present) / 2**30:.0f} GiB in all copies"
    return fitted, f"{fitted.documents:,} documents in place of {case.documents:,}: {asked}, {free / 2**30:.0f} GiB are free"


def bytes_of(case: GpuCase, contestants: Iterable[GpuContestant]) -> int:
    """What the documents as given and everyone's own form of them take; what several share counts once."""
    kept: dict[str, int] = {"given": 2 * case.documents * case.doc_tokens * case.dim}
    for contestant in contestants:
        kept |= contestant.keeps(case)
    return sum(kept.values())
