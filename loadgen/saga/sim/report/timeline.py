"""One workflow step by step: a lane for each of its sessions, for each system the same workflow on the same axis."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from saga.sim.detail import RunDetail, Span
from saga.sim.report.drawing import INK, SOFT, Chart, chart
from saga.sim.report.lines import time_unit
from saga.sim.report.palette import DOINGS, stand_in

WIDTH: Final = 1150
LANE_PX: Final = 40
EDGES_PX: Final = 52  # above and below the lanes of one run
FOOT_PX: Final = 64
MOST_LANES: Final = 16
COLD_SHARE: Final = 0.5  # of the prompt cached, below which a later step's prefill is marked
LABEL_ROOM: Final = 0.022  # of the axis, between two names of workers
NAME_CHARS: Final = 16
AGAIN: Final = "less than half of a later prompt cached"
GAPS: Final = ("tool", "human")


def timeline(name: str, details: Sequence[RunDetail]) -> str:
    """Runs below each other. All must show the same conversation."""
    shown = [detail for detail in details if detail.spans]
    starts = [min(span.start_s for span in detail.spans) for detail in shown]
    longest_s = max(span.end_s - start for detail, start in zip(shown, starts, strict=True) for span in detail.spans)
    divisor, unit = time_unit(longest_s)
    lanes = [_lanes(detail.spans) for detail in shown]
    heights = [LANE_PX * len(lane) + EDGES_PX for lane in lanes]
    with chart(name, WIDTH, sum(heights) + FOOT_PX) as drawn:
        grid = drawn.figure.subplots(
            len(shown), 1, sharex=True, squeeze=False, height_ratios=[len(lane) + 0.6 for lane in lanes]
        )
        drawn.figure.set_layout_engine("constrained", hspace=0.06)
        for row, detail in enumerate(shown):
            axes = grid[row][0]
            _run(drawn, axes, detail, lanes[row], starts[row], divisor, longest_s)
        grid[-1][0].set_xlabel(f"time since the workflow's first request ({unit})")
        used = {span.doing for detail in shown for span in detail.spans}
        handles: list[Patch | Line2D] = [
            Patch(color=stand_in(hue), label=label) for doing, (hue, label) in DOINGS.items() if doing in used
        ]
        if any(_again(span) for detail in shown for span in detail.spans):
            handles.append(Line2D([], [], color=INK, marker="^", markersize=5, linewidth=0, label=AGAIN))
        drawn.figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return drawn.svg("One workflow over time: waiting, prefill, decode and gaps of each session")


def _lanes(spans: Sequence[Span]) -> dict[str, int]:
    """Sessions and their lanes, by first appearance in time."""
    order = dict.fromkeys(span.session for span in sorted(spans, key=lambda span: span.start_s))
    return {session: lane for lane, session in enumerate(list(order)[:MOST_LANES])}


def _run(
    drawn: Chart, axes: Axes, detail: RunDetail, lanes: dict[str, int], start_s: float, unit_s: float, longest_s: float
) -> None:
    for span in detail.spans:
        if span.session in lanes:
            _bar(drawn, axes, span, lanes[span.session], start_s, unit_s)
    for session, lane in lanes.items():
        _workers(axes, [span for span in detail.spans if span.session == session], lane, start_s, unit_s, longest_s)
    sessions = len({span.session for span in detail.spans})
    took_s = max(span.end_s for span in detail.spans) - start_s
    left_out = f", {len(lanes)} of its {sessions} sessions shown" if sessions > len(lanes) else ""
    axes.set_title(f"{detail.system}: {took_s:,.0f} s in all{left_out}", pad=8)
    axes.set_yticks(list(lanes.values()), [_short(session) for session in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.75)
    axes.set_xlim(0.0, longest_s / unit_s * 1.005)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _bar(drawn: Chart, axes: Axes, span: Span, lane: int, start_s: float, unit_s: float) -> None:
    thick = 0.2 if span.doing in GAPS else 0.56
    left, width = (span.start_s - start_s) / unit_s, (span.end_s - span.start_s) / unit_s
    bar = Rectangle((left, lane - thick / 2), width, thick, color=stand_in(DOINGS[span.doing][0]), linewidth=0)
    axes.add_patch(bar)
    drawn.tip(bar, _told(span))
    if _again(span):
        axes.plot([left], [lane + 0.42], marker="^", color=INK, markersize=4.5, clip_on=False)


def _again(span: Span) -> bool:
    return span.doing == "prefill" and span.step > 0 and span.cached_share < COLD_SHARE


def _told(span: Span) -> str:
    where = f" on {span.worker}" if span.worker else ""
    cached = f", {100 * span.cached_share:.0f} % of the prompt cached" if span.doing == "prefill" else ""
    note = f" ({span.note})" if span.note else ""
    return f"{span.session}, step {span.step}: {span.doing}{note}{where}, {span.end_s - span.start_s:,.2f} s{cached}"


def _workers(axes: Axes, spans: Sequence[Span], lane: int, start_s: float, unit_s: float, longest_s: float) -> None:
    """The worker's name above the lane wherever it changes, unless two would touch."""
    last, last_at = "", -1.0
    for span in spans:
        at = (span.start_s - start_s) / longest_s
        if span.worker and span.worker != last:
            if last_at < 0 or at - last_at > LABEL_ROOM:
                axes.text(at * longest_s / unit_s, lane - 0.34, span.worker, fontsize=9.5, color=SOFT)
                last_at = at
            last = span.worker


def _short(session: str) -> str:
    return session if len(session) <= NAME_CHARS else session[: NAME_CHARS - 1] + "…"
