"""What each part of ours is worth: mean TCT of variants named `saga-<what>` over that of all of it, with intervals."""

from collections.abc import Iterable
from typing import Final

from saga.sim.figures import Ratio, Report
from saga.sim.report.compare import SAGA, condition_of, is_variant
from saga.sim.report.drawing import INK, SOFT, chart
from saga.sim.report.palette import stand_in

WIDTH: Final = 552
ROW_PX: Final = 30
EDGES_PX: Final = 92
ROOM: Final = 0.06
WIDEST: Final = 1.6  # times the outermost value: where intervals are cut off


def variants(report: Report) -> dict[str, list[Ratio]]:
    """By condition in words: variant as the baseline of full saga, so that the ratio is its mean TCT over saga's."""
    found: dict[str, list[Ratio]] = {}
    for ratio in report.ratios:
        if ratio.system == SAGA and is_variant(ratio.baseline) and ratio.tct_ratio is not None:
            found.setdefault(condition_of(ratio).title, []).append(ratio)
    return found


def limits(ratios: Iterable[Ratio]) -> tuple[float, float]:
    """Of an axis that all can be read on; a very wide interval leaves it."""
    found = list(ratios)
    values = [1.0, *(ratio.tct_ratio for ratio in found if ratio.tct_ratio is not None)]
    edges = [edge for ratio in found for edge in ratio.ci95 or ()]
    return (
        min([*values, *(max(edge, min(values) / WIDEST) for edge in edges)]),
        max([*values, *(min(edge, max(values) * WIDEST) for edge in edges)]),
    )


def bars(title: str, ratios: list[Ratio], edges: tuple[float, float]) -> str:
    """One bar for each variant, from 1; the longest above. `edges`: of the axis."""
    ordered = sorted(ratios, key=lambda ratio: -(ratio.tct_ratio or 0.0))
    low, high = edges
    room = max(ROOM, (high - low) * 0.12)
    with chart(f"ablation {title}", WIDTH, EDGES_PX + ROW_PX * len(ordered)) as drawn:
        axes = drawn.axes()
        for row, ratio in enumerate(ordered):
            value = ratio.tct_ratio or 1.0
            hue = "vermillion" if value >= 1.0 else "blue"
            (bar,) = axes.barh([row], [value - 1.0], left=1.0, height=0.56, color=stand_in(hue), alpha=0.75)
            drawn.tip(bar, f"{ratio.baseline}: {value:.3f} x the mean TCT of {SAGA}{interval(ratio)}")
            if ratio.ci95 is not None:
                axes.plot(
                    [max(ratio.ci95[0], low), min(ratio.ci95[1], high)],
                    [row, row],
                    color=INK,
                    linewidth=1.6,
                    solid_capstyle="butt",
                )
            end = min(max(value, 1.0, *(ratio.ci95 or ())), high)
            axes.text(end + room * 0.12, row, f"{value:.2f} x", va="center", fontsize=10.5, color=INK)
        axes.axvline(1.0, color=INK, linewidth=1.2)
        axes.set_yticks(range(len(ordered)), [ratio.baseline.removeprefix(SAGA).lstrip("-:") for ratio in ordered])
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        axes.set_xlim(low - room, high + room * 1.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_title(title, pad=10)
        axes.set_xlabel(f"mean TCT / that of {SAGA} (1 = the same)")
        axes.spines["left"].set_visible(False)
        axes.xaxis.label.set_color(SOFT)
        return drawn.svg(f"{title}: mean task completion time without each part, over that of {SAGA}")


def interval(ratio: Ratio) -> str:
    """In words; empty without one."""
    return f", 95 % interval {ratio.ci95[0]:.3f} to {ratio.ci95[1]:.3f}" if ratio.ci95 else ""
