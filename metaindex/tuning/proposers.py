"""Coarse stages that are worth trying: from the least to the most that a search of this kind of index can look at."""

from __future__ import annotations

from collections.abc import Iterable

from metaindex.execution import proposing
from metaindex.execution.executor import Search
from metaindex.planning.plan import Coarse
from metaindex.tuning.outcome import Objective

_LEAST_LISTS_SHARE = 1024  # one list in so many, or one list, is the fewest that is tried
_MOST_LISTS_SHARE = 2  # beyond half of the lists a scan is as good
_BEAM = (16, 4096)


def proposers(search: Search, k: int, most: int, objective: Objective, asked: Iterable[Coarse] | None) -> dict[Coarse, int]:
    """Coarse stages, and how many documents each may be asked for: at most ``most``. ``asked`` are taken in place of those that
    the kind of index suggests.

    Lists and encodings rank alike however many are asked for. A graph does not: it looks further where more are asked for than
    its beam is wide, so no more than that are.

    Raises:
        ValueError: one was asked for and the coarse stage can't serve these searches.
    """
    if search.coarse is None:
        return dict.fromkeys(asked or (), most)  # that there is no such stage is told where the plan is made
    found = proposing.ready(search, search.coarse, Coarse(), k)
    if isinstance(found, str):
        if asked:
            raise ValueError(f"coarse: expected an index whose coarse stage serves these searches: {found}; give coarse=[]")
        return {}
    if asked is None:
        if objective == "bytes" and found.filled.is_graph:
            return {}  # what a walk through a graph reads can't be told
        documents = len(found.places.sequence)
        asked = (
            _beams(k, documents) if found.filled.is_graph else _probes(found.filled.lists, "nprobe" in found.filled.defaults)
        )
    graph = found.filled.is_graph
    return {source: min(most, max(k, source.settings.get("efSearch", most))) if graph else most for source in asked}


def _probes(lists: int, settable: bool) -> list[Coarse]:
    if not lists or not settable:
        return [Coarse()]
    numbers, probes = [], max(1, lists // _LEAST_LISTS_SHARE)
    while probes <= max(1, lists // _MOST_LISTS_SHARE):
        numbers.append(probes)
        probes *= 2
    return [Coarse((("nprobe", number),)) for number in numbers]


def _beams(k: int, documents: int) -> list[Coarse]:
    least, most = _BEAM
    numbers, beam = [], max(least, 1 << (k - 1).bit_length())
    while beam <= max(least, min(most, documents)):
        numbers.append(beam)
        beam *= 2
    return [Coarse((("efSearch", number),)) for number in numbers]
