"""MaxSim in C++ on the processor: the best instruction set that the machine has for a codec, or a pinned one."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from metaindex import _native
from metaindex.scoring import banded
from metaindex.scoring.registry import Verdict
from metaindex.scoring.request import ScoreRequest
from metaindex.storage.snapshot import Snapshot

# Per snapshot and codec: the pointer table of its first levels, by how many. A deeper search does not load what a shallow one
# needs, and building a table costs a pass over the lengths, so it is done once.
_tables: WeakKeyDictionary[Snapshot, dict[tuple[str, int], Any]] = WeakKeyDictionary()


class CpuScorer:
    """Serves every request that its instruction set has arithmetic for; ``isa=None`` takes the best one per codec."""

    def __init__(self, isa: str | None = None) -> None:
        self.isa = isa

    @property
    def name(self) -> str:
        return "cpu" if self.isa is None else f"cpu:{self.isa}"

    def supports(self, request: ScoreRequest) -> Verdict:
        if _native.missing is not None:
            return Verdict(False, f"the compiled module is missing ({_native.missing})")
        verdicts = [self._serves(name) for name in dict.fromkeys(band.codec.name for band in request.bands)]
        return next((each for each in verdicts if not each.ok), Verdict(True, ", ".join(each.why for each in verdicts)))

    def _serves(self, codec: str) -> Verdict:
        isa = _native.core.default_isa(codec) if self.isa is None else self.isa
        return Verdict(*_native.core.serves(isa, codec))

    def score(self, request: ScoreRequest, scores: NDArray[np.float32], rows: NDArray[np.int64] | None = None) -> None:
        if request.beyond:
            banded.score(self, request, scores, rows)
            return
        parts = request.queries.parts
        table = level_table(request)
        codes = np.ascontiguousarray(parts.codes)
        scales = None if parts.scales is None else np.ascontiguousarray(parts.scales)
        lengths = np.ascontiguousarray(request.queries.lengths)
        allow = None if request.allow is None else np.ascontiguousarray(request.allow)
        r_q, r_c = request.budget
        run = (self.isa, request.num_threads)
        if request.candidates is None:
            _native.core.maxsim_scan(table, codes, scales, lengths, r_q, r_c, scores, rows, allow, *run)
        else:
            candidates = np.ascontiguousarray(request.candidates, dtype=np.int64)
            _native.core.maxsim_gather(table, codes, scales, lengths, r_q, r_c, candidates, scores, rows, allow, *run)


def level_table(request: ScoreRequest) -> Any:
    """The pointers to the levels that the request's budget needs, over all segments of its snapshot."""
    snapshot = request.snapshot
    needed = snapshot.levels.needed(request.budget.r_c)
    tables = _tables.setdefault(snapshot, {})
    key = (request.codec.name, needed)
    if key not in tables:
        segments = [
            (
                [level.parts for level in segment.levels[:needed]],
                np.ascontiguousarray(segment.lengths),
                np.ascontiguousarray(segment.sequence),
            )
            for segment in snapshot.segments
        ]
        tables[key] = _native.core.LevelTable(
            request.codec.name,
            request.dim,
            [snapshot.levels.start(level) for level in range(needed)],
            [snapshot.levels.width(level) for level in range(needed)],
            segments,
        )
    return tables[key]
