"""The plot of a sweep: quality against latency, every run a faint point, the Pareto line solid.

Uses matplotlib's object interface, so no window system, no global state and no backend of the caller is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaindex.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which stay apart for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_INK, _GRID = "#222222", "#d9d9d9"
_FONT = 8  # points
_LETTER = 0.58 * _FONT  # the width of a letter of that size, about

_Box = tuple[float, float, float, float]  # left, bottom, right, top in points


@dataclass(frozen=True)
class Run:
    """One measured configuration: ``latency`` in milliseconds (less is better), ``quality`` (more is better).

    Runs of one ``series`` share a colour and a faint line; ``label`` says which of them this is.
    """

    series: str
    label: str
    latency: float
    quality: float


def pareto(runs: Iterable[Run]) -> list[Run]:
    """The runs that no other one beats on both sides, from the fastest to the best. Of equals the first stays."""
    kept: list[Run] = []
    for run in sorted(runs, key=lambda run: (run.latency, -run.quality)):
        if not kept or run.quality > kept[-1].quality:
            kept.append(run)
    return kept


def require_matplotlib() -> None:
    """Raise the error that ``plot_tradeoff`` would, before hours of work rather than after.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError("plots need matplotlib, which is not installed: pip install 'metaindex[plot]'") from None


def plot_tradeoff(
    runs: Sequence[Run],
    path: str | os.PathLike[str],
    *,
    title: str,
    quality: str,
    latency: str = "median latency per query, ms (log scale)",
) -> None:
    """Draw ``runs`` as a PNG file at ``path``, replacing what is there. ``quality`` and ``latency`` name the axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ValueError: no runs.
    """
    require_matplotlib()
    if not runs:
        raise ValueError("runs: expected at least one to draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_series(axes, runs)
    best = pareto(runs)
    axes.plot(
        [run.latency for run in best], [run.quality for run in best], color=_INK, linewidth=1.8, label="Pareto line", zorder=4
    )
    axes.set_xscale("log")
    axes.set_xlabel(latency)
    axes.set_ylabel(quality)
    axes.set_title(title, loc="left", fontsize=11)
    _tidy(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    _label(axes, runs, best)
    figure.savefig(path, format="png")


def _draw_series(axes: Axes, runs: Sequence[Run]) -> None:
    for number, series in enumerate(dict.fromkeys(run.series for run in runs)):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        members = [run for run in runs if run.series == series]
        x, y = [run.latency for run in members], [run.quality for run in members]
        axes.plot(x, y, color=colour, alpha=0.3, linewidth=1, zorder=2)
        axes.scatter(x, y, color=colour, alpha=0.55, marker=marker, s=34, linewidths=0, label=series, zorder=3)


def _label(axes: Axes, runs: Sequence[Run], best: Sequence[Run]) -> None:
    """Name runs beside their points, those on the Pareto line first; one that finds no free place stays unnamed."""
    # Settles the limits of both axes, and so the place of every point on the page.
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    points = [axes.transData.transform((run.latency, run.quality)) / axes.figure.dpi * 72 for run in runs]
    left, right = (edge / axes.figure.dpi * 72 for edge in axes.bbox.intervalx)
    taken: list[_Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    for run, (x, y) in sorted(zip(runs, points), key=lambda pair: pair[0] not in best):
        on_line = run in best
        places = _places(_LETTER * len(run.label), on_line)
        boxes = [_around(x + across, y + up, run.label) for across, up in places]
        free = [
            place
            for place, box in enumerate(boxes)
            if left <= box[0] and box[2] <= right and not any(_overlap(box, other) for other in taken)
        ]
        if not free:
            continue
        chosen = free[0]
        taken.append(boxes[chosen])
        axes.annotate(
            run.label,
            (run.latency, run.quality),
            xytext=places[chosen],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_FONT,
            color=_INK,
            alpha=1 if on_line else 0.55,
            zorder=5,
        )


def _places(width: float, on_line: bool) -> list[tuple[float, float]]:
    """Where a label of that width may stand around its point, the best place first."""
    above, below, right, left = (-width / 2, 9.0), (width / 2, -9.0), (width / 2 + 6, 0.0), (-width / 2 - 6, 0.0)
    # The Pareto line rises to the right, so it never crosses what stands up and to the left of its points.
    return [above, left, below, right] if on_line else [below, right, above, left]


def _around(x: float, y: float, label: str) -> _Box:
    width = _LETTER * len(label)
    return (x - width / 2, y - _FONT / 2, x + width / 2, y + _FONT / 2)


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _tidy(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.margins(x=0.12, y=0.14)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
