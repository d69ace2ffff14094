"""Plots of a run: latency against budget, and how near to its floor every case comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu import DRY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

# Okabe and Ito's colours, which stay apart for colour-blind readers.
_OURS, _PEERS, _IDEAL = ("#0072B2", "#009E73", "#56B4E9", "#CC79A7"), "#D55E00", "#999999"


def draw(rows: list[Row], stem: Path, *, dry: bool) -> list[Path]:
    """Write ``<stem>-budget.png`` and ``<stem>-floor.png``, those that there are rows for. Without matplotlib, none."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("no plots: matplotlib is not installed")
        return []
    timed = [row for row in rows if "median_ms" in row]
    wanted: Iterable[tuple[str, Callable[[Axes, list[Row]], None], list[Row]]] = (
        ("budget", _budget, [row for row in timed if row["case"].startswith("budget")]),
        ("floor", _floor, [row for row in timed if "of_floor" in row]),
    )
    return [_figure(paint, some, stem.with_name(f"{stem.name}-{kind}.png"), dry) for kind, paint, some in wanted if some]


def _figure(paint: Callable[[Axes, list[Row]], None], rows: list[Row], path: Path, dry: bool) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes, rows)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    if dry:
        figure.text(0.5, 0.5, DRY, fontsize=28, color="#cc0000", alpha=0.4, ha="center", va="center", rotation=20)
    figure.savefig(path, format="png")
    return path


def _budget(axes: Axes, rows: list[Row]) -> None:
    """Milliseconds against r_c, both logarithmic: ours, what r_c / T of the full scan would be, and others where they ran."""
    ours = [row for row in rows if row["ours"] and row["case"] == "budget"]
    for colour, name in zip(_OURS, dict.fromkeys(row["contestant"] for row in ours)):
        points = sorted((row["r_c"], row["median_ms"]) for row in ours if row["contestant"] == name)
        axes.plot(*zip(*points), color=colour, marker="o", markersize=4, label=name)
        last, most = points[-1]
        axes.plot([points[0][0], last], [most * points[0][0] / last, most], color=_IDEAL, linewidth=0.8, linestyle=":")
    peers: dict[int, float] = {}
    for row in rows:
        if not row["ours"]:
            peers[row["r_c"]] = min(row["median_ms"], peers.get(row["r_c"], float("inf")))
    if peers:
        axes.scatter(list(peers), list(peers.values()), color=_PEERS, marker="s", s=30, label="best peer", zorder=3)
    axes.plot([], [], color=_IDEAL, linewidth=0.8, linestyle=":", label="r_c / T of all tokens")
    axes.set(xscale="log", yscale="log", xlabel="document tokens compared, r_c", ylabel="milliseconds")
    ticks = sorted({row["r_c"] for row in rows})
    axes.set_xticks(ticks, [str(r_c) for r_c in ticks], minor=False)
    axes.minorticks_off()
    axes.set_title("A scan's time against its budget", loc="left", fontsize=11)


def _floor(axes: Axes, rows: list[Row]) -> None:
    """For each case, ours and others: the best share of the floor, at the largest budget."""
    cases = [case for case in dict.fromkeys(row["case"] for row in rows) if not case.startswith("budget")][::-1]
    for offset, ours, colour, label in ((0.2, True, _OURS[0], "metaindex, best"), (-0.2, False, _PEERS, "best peer")):
        shares = [_best_share([row for row in rows if row["case"] == case and row["ours"] == ours]) for case in cases]
        places = [place + offset for place in range(len(cases))]
        axes.barh(places, [100 * share for share in shares], height=0.38, color=colour, label=label)
    axes.axvline(100, color="#222222", linewidth=0.8)
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_xlabel("% of the floor: the longer of reading and multiplying, at rates measured beside it")
    axes.set_title("How near to the roof", loc="left", fontsize=11)


def _best_share(rows: list[Row]) -> float:
    return max((row["of_floor"] for row in rows), default=0.0)
