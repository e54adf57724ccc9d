"""Lines that carry their own names at their right end, moved apart where they would cover each other.

Used by every chart of lines that reach the right edge; a legend would make readers look back and forth.
"""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from msgspec import Struct

from saga.sim.report.drawing import INK, POINTS, SOFT, Chart
from saga.sim.report.palette import Look, stand_in

LABEL_PX: Final = 14.5  # between the middles of two labels
LABELS_WIDTH_PX: Final = 178
ALONE: Final = 1.5  # how far an axis with one value goes to the left of it, as a factor
LEFT_PX, TOP_PX, BOTTOM_PX = 62, 30, 44


class Line(Struct, frozen=True):
    """One series. `bold`: one of the two or three that the chart is about."""

    name: str
    look: Look
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    tips: tuple[str, ...] = ()  # one for each point; none: points are not marked
    bold: bool = False
    note: str = ""  # behind the name in the label
    ranges: tuple[tuple[float, float], ...] = ()  # lowest and highest seed at each point, drawn if bold


def panel(chart: Chart, title: str) -> Axes:
    """Axes that leave room for the labels on their right."""
    width, height = (side * POINTS for side in chart.figure.get_size_inches())
    chart.figure.set_layout_engine("none")
    axes = chart.figure.add_axes(
        (
            LEFT_PX / width,
            BOTTOM_PX / height,
            (width - LEFT_PX - LABELS_WIDTH_PX) / width,
            (height - TOP_PX - BOTTOM_PX) / height,
        )
    )
    axes.set_title(title, pad=10)
    return axes


def draw(chart: Chart, axes: Axes, lines: Sequence[Line]) -> None:
    """All lines, the bold ones on top; limits and scales of the axes must be set before."""
    for line in lines:
        colour, bold = stand_in(line.look.hue), line.bold
        axes.plot(
            line.xs,
            line.ys,
            color=colour,
            linestyle=line.look.line,
            linewidth=2.6 if bold else 1.3,
            alpha=1.0 if bold else 0.7,
            zorder=3 if bold else 2,
        )
        for x, (low, high) in zip(line.xs, line.ranges, strict=True) if bold and line.ranges else ():
            axes.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.8, solid_capstyle="butt", zorder=2.8)
        for x, y, tip in zip(line.xs, line.ys, line.tips, strict=False):
            (point,) = axes.plot(
                [x],
                [y],
                color=colour,
                marker=line.look.marker or "_",
                markersize=7 if bold else 5,
                markeredgecolor=stand_in("panel"),
                markeredgewidth=0.8,
                alpha=1.0 if bold else 0.85,
                zorder=4 if bold else 2.5,
            )
            chart.tip(point, tip)
    _label(axes, [line for line in lines if line.xs])


def _label(axes: Axes, lines: Sequence[Line]) -> None:
    """Names at the right edge, joined to the line's end by a thin one."""
    right_px = axes.transAxes.transform((1.0, 0.0))[0]
    ends = [axes.transData.transform((line.xs[-1], line.ys[-1])) for line in lines]
    bottom, top = (axes.transAxes.transform((0.0, y))[1] for y in (0.0, 1.0))
    places = spread([end[1] for end in ends], LABEL_PX, bottom, top)
    to_axes = axes.transAxes.inverted()
    for line, end, place in zip(lines, ends, places, strict=True):
        end_at = to_axes.transform(end)
        elbow = to_axes.transform((right_px + 16, place))
        axes.plot(
            [end_at[0], elbow[0]],
            [end_at[1], elbow[1]],
            transform=axes.transAxes,
            color=stand_in(line.look.hue),
            linewidth=0.8,
            alpha=0.7,
            clip_on=False,
            zorder=1.5,
        )
        axes.text(
            elbow[0] + 0.008,
            elbow[1],
            line.name + line.note,
            transform=axes.transAxes,
            va="center_baseline",
            color=INK if line.bold else SOFT,
            weight="bold" if line.bold else "normal",
            fontsize=11,
        )


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places nearest to those wanted (least squares), at least `least` apart, between `low` and `high` if possible."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # (mean of what its members want less their offset, members)
    for rank, index in enumerate(order):
        block = (wanted[index] - rank * least, 1)
        while blocks and blocks[-1][0] >= block[0]:
            value, members = blocks.pop()
            total = members + block[1]
            block = ((value * members + block[0] * block[1]) / total, total)
        blocks.append(block)
    flat = [value for value, members in blocks for _ in range(members)]
    ceiling = max(low, high - (len(wanted) - 1) * least)
    places = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        places[index] = min(max(flat[rank], low), ceiling) + rank * least
    return places


def log_seconds(axes: Axes, low_s: float, high_s: float) -> None:
    """A log y axis in seconds with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylim(low_s, high_s)
    axes.yaxis.set_major_locator(LogLocator(subs=log_steps(low_s, high_s)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def log_steps(low: float, high: float) -> tuple[float, ...]:
    """Which multiples of powers of ten a log axis names."""
    if high < 12 * low:
        return (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    return (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)


def plain(value: float) -> str:
    """A tick's number as people write it."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def log_at(axes: Axes, xs: Sequence[float]) -> None:
    """A log x axis with a tick at each value measured."""
    axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(xs) / (ALONE if len(xs) == 1 else 1.12), max(xs) * 1.12)


def time_unit(longest_s: float) -> tuple[float, str]:
    """(seconds in it, its name): the unit in which an axis this long has readable numbers."""
    if longest_s > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest_s > 300 else (1.0, "seconds")
