"""Distributions of task completion time and of slowdown in one set of runs: share of tasks within a time."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from saga.sim.detail import RunDetail
from saga.sim.figures import SLO_SLOWDOWN
from saga.sim.report.compare import SAGA
from saga.sim.report.drawing import SOFT, chart
from saga.sim.report.lines import log_steps, plain
from saga.sim.report.palette import look, stand_in

WIDTH, HEIGHT = 552, 356
LEGEND_ROW_PX, LEGEND_COLUMNS = 18, 3
MOST_POINTS: Final = 300  # of one line; quantiles stand for more


def distributions(name: str, details: Sequence[RunDetail], best: str) -> list[str]:
    """TCT, then slowdown."""
    return [
        _cdf(f"{name} tct", "Task completion time", "TCT (s, log scale)", details, best, lambda d: d.tct_s, None),
        _cdf(
            f"{name} slowdown",
            "Slowdown against the KV bound",
            "TCT / the same task's in the KV bound (log scale)",
            details,
            best,
            lambda d: d.slowdowns,
            SLO_SLOWDOWN,
        ),
    ]


def _cdf(
    name: str,
    title: str,
    unit: str,
    details: Sequence[RunDetail],
    best: str,
    pick: Callable[[RunDetail], tuple[float, ...]],
    objective: float | None,
) -> str:
    rows = math.ceil((len(details) + (objective is not None)) / LEGEND_COLUMNS)
    with chart(name, WIDTH, HEIGHT + LEGEND_ROW_PX * rows) as drawn:
        axes = drawn.axes()
        axes.set_title(title, pad=10)
        axes.set_xlabel(unit)
        axes.set_ylabel("tasks that took at most this (%)")
        if objective is not None:
            axes.axvline(objective, color=SOFT, linestyle=":", linewidth=1.4, label=f"SLO: {objective:g} x")
        for detail in sorted(details, key=lambda d: (d.system == SAGA, d.system == best)):
            values = [value for value in pick(detail) if value > 0]
            if values:
                _step(axes, detail.system, values, bold=detail.system in {SAGA, best}, best=detail.system == best)
        _scales(axes)
        handles, labels = axes.get_legend_handles_labels()
        drawn.figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=LEGEND_COLUMNS)
        return drawn.svg(f"{title}: share of tasks within it, by system")


def _step(axes: Axes, system: str, values: list[float], *, bold: bool, best: bool) -> None:
    every = max(1, len(values) // MOST_POINTS)
    at = [*range(0, len(values), every), len(values) - 1]
    style = look(system)
    axes.step(
        [values[0], *(values[i] for i in at)],
        [0.0, *((i + 1) / len(values) for i in at)],
        where="post",
        color=stand_in(style.hue),
        linestyle=style.line,
        linewidth=2.6 if bold else 1.3,
        alpha=1.0 if bold else 0.75,
        label=f"{system} (best)" if best else system,
    )


def _scales(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=log_steps(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_ylim(0.0, 1.02)
