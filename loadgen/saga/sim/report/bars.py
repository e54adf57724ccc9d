"""Horizontal bars of ratios from 1, each with its interval. Used at a glance and for the ablation."""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from saga.sim.report.drawing import INK, SOFT, chart
from saga.sim.report.palette import stand_in

ROW_PX: Final = 28
EDGES_PX: Final = 74
TITLE_PX: Final = 22
ROOM: Final = 0.06
WIDEST: Final = 1.6  # times the outermost value: where intervals are cut off


class Bar(Struct, frozen=True):
    """One ratio with its 95 % interval; `told` is shown when the pointer rests on it."""

    name: str
    value: float
    ci95: tuple[float, float] | None
    told: str


def limits(bars: Iterable[Bar]) -> tuple[float, float]:
    """Of an axis that all can be read on; a very wide interval leaves it."""
    found = list(bars)
    values = [1.0, *(bar.value for bar in found)]
    edges = [edge for bar in found for edge in bar.ci95 or ()]
    return (
        min([*values, *(max(edge, min(values) / WIDEST) for edge in edges)]),
        max([*values, *(min(edge, max(values) * WIDEST) for edge in edges)]),
    )


def draw_bars(name: str, title: str, unit: str, bars: Sequence[Bar], edges: tuple[float, float], width: float) -> str:
    """In the order given. Right of 1 in the colour of ours. `edges`: of the axis, from `limits`."""
    low, high = edges
    room = max(ROOM, (high - low) * 0.12)
    height = EDGES_PX + ROW_PX * len(bars) + (TITLE_PX if title else 0)
    with chart(name, width, height) as drawn:
        axes = drawn.axes()
        for row, each in enumerate(bars):
            hue = "vermillion" if each.value >= 1.0 else "blue"
            (bar,) = axes.barh([row], [each.value - 1.0], left=1.0, height=0.56, color=stand_in(hue), alpha=0.75)
            drawn.tip(bar, each.told)
            end = max(each.value, 1.0)
            if each.ci95 is not None:
                start, end = max(each.ci95[0], low), min(max(each.ci95[1], end), high)
                axes.plot([start, min(each.ci95[1], high)], [row, row], color=INK, linewidth=1.6)
            axes.text(end + room * 0.12, row, f"{each.value:.2f} x", va="center", fontsize=10.5, color=INK)
        axes.axvline(1.0, color=INK, linewidth=1.2)
        axes.set_yticks(range(len(bars)), [each.name for each in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(low - room, high + room * 1.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_title(title, pad=10)
        axes.set_xlabel(unit, color=SOFT)
        axes.spines["left"].set_visible(False)
        return drawn.svg(f"{title or 'All conditions'}: {unit}")
