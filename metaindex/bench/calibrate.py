"""What ``metaindex doctor --calibrate`` runs: stages of many shapes, by turns, and the rates that explain their times.

Data in a core's own cache gives the rates of arithmetic, data of all sizes beyond it those of the caches behind and of memory,
and results of many documents those of keeping them; see ``planning.cost``. Shapes are short and take turns, and the median of
their times counts. On one thread that is the time of the thread alone, whatever else the processor does meanwhile.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from metaindex.bench import stages
from metaindex.bench.fit import Sample, best_threads, rates
from metaindex.bench.stages import StageTimer
from metaindex.codecs import codec as find_codec
from metaindex.execution.executor import Search
from metaindex.index import MetaIndex
from metaindex.planning.cost import Rates
from metaindex.planning.plan import Step
from metaindex.processor import core_cache_bytes, last_cache_bytes
from metaindex.types import Budget

_DIMS = (64, 512)
_LANES = ((1, 1), (2, 1), (4, 1), (16, 1), (1, 16), (4, 16), (16, 16))  # query tokens, queries
_TOKENS = (1, 4, 16, 64)
_FEW = 50
_K = 10
_TURNS = 12
_LONG = 50e-3  # seconds; a shape that took so long in all has had its turns, after the fewest that make a median
_FEWEST_TURNS = 3
_NEAR = 1 / 2  # of a core's own cache
_NEAR_DOCUMENTS = (1, 4000)
_FAR = 8  # times the last cache
_FAR_BYTES = 1 << 30
_FAR_CANDIDATES = (100, 1000, 4000)
_DENSE = 16_000  # candidates of few tokens, among which many share a page
_KEPT = ((1000, 2000), (1000, 10_000), (10_000, 20_000))  # results, and candidates that they are of


@dataclass(eq=False)
class _Shape:
    """A stage to time: ``candidates`` per query, or a scan; ``seconds`` of each turn."""

    search: Search
    step: Step
    candidates: int | None = None
    cold: bool = False
    seconds: list[float] = field(default_factory=list)

    def turn(self, timer: StageTimer) -> None:
        if len(self.seconds) < _FEWEST_TURNS or sum(self.seconds) < _LONG:
            measured = stages.clock(self.search.num_threads)
            self.seconds.append(timer.seconds(self.search, self.step, self.candidates, measured, cold=self.cold))

    @property
    def sample(self) -> Sample:
        shape = None if self.candidates is None else (len(self.search.queries), self.candidates)
        return Sample(self.search.work(self.step, shape), statistics.median(self.seconds))


def calibrate(codec: str, num_threads: int, progress: Callable[[float], None] = lambda share: None) -> Rates:
    """The rates of the automatic CPU scorer for ``codec``, on one thread and on ``num_threads``."""
    timer = StageTimer()
    near, last = _near(codec), last_cache_bytes()
    per_token = [find_codec(codec).bytes_per_token(dim) for dim in _DIMS]
    far = [
        stages.index(codec, dim, max(fewest, min(_FAR * last, _FAR_BYTES) // (_TOKENS[-1] * size)), _TOKENS[-1])
        for dim, size, fewest in zip(_DIMS, per_token, (_KEPT[-1][1], _FAR_CANDIDATES[-1]))
    ]
    close = [shape for index, r_c in near for shape in _near_shapes(index, r_c, timer.random)]
    kept = list(_kept_shapes(far[0], timer.random))
    away = [shape for index in far for shape in _far_shapes(index, timer.random)]
    wide = [_on_threads(shape, num_threads) for shape in (*_telling(close), *away)] if num_threads > 1 else []
    shapes = [*close, *kept, *away, *wide]
    for turn in range(_TURNS):
        for at in timer.random.permutation(len(shapes)):
            shapes[at].turn(timer)
        progress((turn + 1) / _TURNS)
    found = rates(
        near=[shape.sample for shape in close],
        kept=[shape.sample for shape in kept],
        far=[shape.sample for shape in away],
        core_cache=core_cache_bytes(),
    )
    for scans in (True, False) if wide else ():
        chosen = [shape.sample for shape in wide if (shape.candidates is None) == scans]
        found = best_threads(found, scans, chosen, num_threads)
    return found


def _near(codec: str) -> list[tuple[MetaIndex, int]]:
    """Indexes that a core's own cache holds, and the tokens of their documents."""
    found = []
    for dim in _DIMS:
        for tokens in _TOKENS:
            size = tokens * find_codec(codec).bytes_per_token(dim)
            documents = int(np.clip(_NEAR * core_cache_bytes() // size, *_NEAR_DOCUMENTS))
            found.append((stages.index(codec, dim, documents, tokens), tokens))
    return found


def _near_shapes(index: MetaIndex, r_c: int, random: np.random.Generator) -> Iterator[_Shape]:
    documents = len(index)
    counts = sorted({min(_FEW, documents), documents})
    for r_q, batch in _LANES:
        search = stages.search(index, r_q, batch, random)
        yield _Shape(search, Step(Budget(r_q, r_c), _K))
        if batch == 1 or r_q > 1:
            yield from (_Shape(search, Step(Budget(r_q, r_c), _K), count) for count in counts)
    if r_c == 1:
        search = stages.search(index, 1, 1, random)
        for kept in (10 * _K, documents // 2):
            yield from (_Shape(search, Step(Budget(1, 1), kept), count) for count in (None, documents))


def _kept_shapes(index: MetaIndex, random: np.random.Generator) -> Iterator[_Shape]:
    search = stages.search(index, 1, 1, random)
    for kept, count in _KEPT:
        yield _Shape(search, Step(Budget(1, 1), kept), count)
    for kept in sorted({kept for kept, _ in _KEPT}):
        yield _Shape(search, Step(Budget(1, 1), kept))
    yield _Shape(stages.search(index, 1, 16, random), Step(Budget(1, 1), _K))


def _far_shapes(index: MetaIndex, random: np.random.Generator) -> Iterator[_Shape]:
    for r_q in (1, 16):
        search = stages.search(index, r_q, 1, random)
        for r_c in _TOKENS:
            yield _Shape(search, Step(Budget(r_q, r_c), _K))
            counts = (*_FAR_CANDIDATES, _DENSE) if r_q == 1 and r_c < _TOKENS[-1] else _FAR_CANDIDATES
            yield from (_Shape(search, Step(Budget(r_q, r_c), _K), count, cold=True) for count in counts if count <= len(index))


def _telling(shapes: Sequence[_Shape]) -> list[_Shape]:
    """Those shapes, some of them too small for several threads, that tell what threads do to arithmetic."""
    return [shape for shape in shapes if len(shape.search.queries) == 1 and shape.step.budget.r_q == 16]


def _on_threads(shape: _Shape, num_threads: int) -> _Shape:
    return _Shape(replace(shape.search, num_threads=num_threads), shape.step, shape.candidates, shape.cold)
