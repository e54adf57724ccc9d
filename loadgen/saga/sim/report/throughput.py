"""Tasks a minute against completion time, along the knob between them: the share of KV that the active set may fill.

One chart for each condition in which systems named `saga-fills:<share>` were run. Called by `files`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from matplotlib.axes import Axes
from msgspec import Struct

from saga.sim.figures import Run
from saga.sim.report.compare import SAGA, Condition, by_condition, over_seeds
from saga.sim.report.drawing import INK, SOFT, chart
from saga.sim.report.lines import panel
from saga.sim.report.palette import LOOKS, stand_in

FILLS: Final = "saga-fills:"
WIDTH, HEIGHT = 552, 390
LEAST_POINTS: Final = 2
ROOM: Final = 0.08
LINE_PX: Final = 17.0  # of a name
LEADER: Final = {
    "arrowstyle": "-",
    "color": SOFT,
    "linewidth": 0.6,
    "alpha": 0.5,
    "shrinkA": 2,
    "shrinkB": 5,
    "relpos": (0.0, 0.5),
}


class Point(Struct, frozen=True):
    """One setting, means over seeds."""

    name: str  # the share; empty: learnt
    per_min: float
    tct_s: float


def throughput_curves(runs: Sequence[Run]) -> Iterator[tuple[Condition, str]]:
    """(where, SVG) for each condition that has settings to draw."""
    for condition, systems in by_condition(runs).items():
        points = [point for name, found in systems.items() if (point := _point(name, found)) is not None]
        settings = sorted((p for p in points if p.name), key=lambda p: float(p.name))
        if len(settings) >= LEAST_POINTS:
            yield condition, _draw(condition, settings, [p for p in points if not p.name])


def _point(system: str, runs: Sequence[Run]) -> Point | None:
    if system != SAGA and not system.startswith(FILLS):
        return None
    tct_s = over_seeds(runs, lambda run: run.tct_s.mean)
    per_min = over_seeds(runs, lambda run: run.tasks_per_min)
    name = system.removeprefix(FILLS) if system != SAGA else ""
    return Point(name, per_min, tct_s) if tct_s and per_min else None


def _draw(condition: Condition, settings: Sequence[Point], learnt: Sequence[Point]) -> str:
    ours = stand_in(LOOKS[SAGA].hue)
    plain = stand_in("blue")
    with chart(f"throughput {condition.title}", WIDTH, HEIGHT) as drawn:
        axes = panel(drawn, f"{condition.workload}, {condition.at}, host tier {condition.host_tier}")
        axes.plot([p.per_min for p in settings], [p.tct_s for p in settings], color=plain, linewidth=1.6, zorder=2)
        for point in (*settings, *learnt):
            colour = plain if point.name else ours
            (dot,) = axes.plot([point.per_min], [point.tct_s], color=colour, marker="o", markersize=7, zorder=3)
            drawn.tip(dot, f"{_told(point)}: {point.per_min:.2f} tasks/min, mean TCT {point.tct_s:,.0f} s")
        axes.margins(ROOM)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "25" else "")
        axes.set_xlabel("tasks a minute, all users at work")
        axes.set_ylabel("mean TCT (s)")
        _label(axes, (*settings, *learnt))
        return drawn.svg(f"{condition.title}: mean task completion time against tasks a minute, by share of KV filled")


def _told(point: Point) -> str:
    return f"{float(point.name):.0%} of KV" if point.name else f"{SAGA}: learnt"


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Names in a column beside the chart, each with a line to its point: near the optimum points lie on each other."""
    height = axes.get_window_extent().height
    at = {
        id(point): axes.transAxes.inverted().transform(axes.transData.transform(_place(point)))[1] for point in points
    }
    lowest = 0.0
    for point in sorted(points, key=lambda each: each.tct_s):
        lowest = max(lowest, at[id(point)])
        axes.annotate(
            _told(point),
            _place(point),
            xytext=(1.04, lowest),
            textcoords="axes fraction",
            va="center",
            color=SOFT if point.name else INK,
            weight="normal" if point.name else "bold",
            fontsize=10.5,
            arrowprops=LEADER,
        )
        lowest += LINE_PX / height


def _place(point: Point) -> tuple[float, float]:
    return point.per_min, point.tct_s
