"""Steps that started elsewhere than where they waited: a lane for each worker with what runs and waits there, a stroke
for each such step from the worker it left to the one that took it, and below what each saved and cost."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from saga.sim.detail import Moved, RunDetail, Sample
from saga.sim.report.drawing import INK, SOFT, Chart, chart
from saga.sim.report.lines import time_unit
from saga.sim.report.occupancy import MOST_WORKERS
from saga.sim.report.palette import stand_in

WIDTH: Final = 1150
LANE_PX: Final = 92
WORTH_PX: Final = 150
EDGES_PX: Final = 96
LANE: Final = 0.8  # of the distance between two lanes, that its busiest moment fills
AROUND: Final = 0.06  # of the time shown, before the first and after the last
LEAST_SHOWN_S: Final = 60.0
MOST_STROKES: Final = 150  # the first: more would cover each other
LEAST_S: Final = 0.01  # on the axis of what moves saved and cost; less is drawn there
HUES: Final = {False: ("vermillion", "moved, leaving its KV"), True: ("green", "began elsewhere: left nothing")}


def moves_timeline(name: str, detail: RunDetail) -> str:
    """The part of the run in which steps moved. The detail must have moves and samples."""
    shown = detail.moves[:MOST_STROKES]
    start_s, end_s = _around(shown, detail.samples[-1].at_s)
    divisor, unit = time_unit(end_s)
    workers = detail.workers[:MOST_WORKERS]
    with chart(name, WIDTH, LANE_PX * len(workers) + WORTH_PX + EDGES_PX) as drawn:
        lanes, worth = drawn.figure.subplots(2, 1, sharex=True, height_ratios=[LANE_PX * len(workers), WORTH_PX])
        most = _lanes(lanes, workers, [s for s in detail.samples if start_s <= s.at_s <= end_s], divisor)
        _strokes(drawn, lanes, workers, shown, divisor)
        _worth(drawn, worth, shown, divisor)
        left_out = f", the first {len(shown)} are drawn" if len(shown) < len(detail.moves) else ""
        lanes.set_title(f"{detail.system}: {len(detail.moves)} steps started elsewhere{left_out}", pad=8)
        lanes.set_ylabel(f"requests, a full lane is {most:,}")
        worth.set_xlim(start_s / divisor, end_s / divisor)
        worth.set_xlabel(f"time since the run's start ({unit})")
        drawn.figure.legend(handles=_legend(shown), loc="outside lower center", ncols=3)
        return drawn.svg(f"{detail.system}: steps that started on another worker than the one they waited for")


def _around(moves: Sequence[Moved], ended_s: float) -> tuple[float, float]:
    first_s, last_s = moves[0].at_s, moves[-1].at_s
    room_s = max(LEAST_SHOWN_S, AROUND * (last_s - first_s))
    return max(0.0, first_s - room_s), min(ended_s, last_s + room_s)


def _lanes(axes: Axes, workers: Sequence[str], samples: Sequence[Sample], divisor: float) -> int:
    """What runs, and on top of it what waits, in the engine or for a slot of it; how many fill a lane."""
    running = [[sample.running[lane] for sample in samples] for lane in range(len(workers))]
    waiting = [
        [sample.waiting[lane] + (sample.at_home[lane] if sample.at_home else 0) for sample in samples]
        for lane in range(len(workers))
    ]
    pairs = (pair for lane in zip(running, waiting, strict=True) for pair in zip(*lane, strict=True))
    most = max((sum(pair) for pair in pairs), default=0) or 1
    at = [sample.at_s / divisor for sample in samples]
    for lane, worker in enumerate(workers):
        floor = _floor(lane)
        runs = [floor - LANE * count / most for count in running[lane]]
        waits = [top - LANE * count / most for top, count in zip(runs, waiting[lane], strict=True)]
        axes.fill_between(at, floor, runs, color=stand_in("blue"), alpha=0.45, linewidth=0, step="post")
        axes.fill_between(at, runs, waits, color=stand_in("purple"), alpha=0.65, linewidth=0, step="post")
        axes.axhline(floor, color=SOFT, linewidth=0.8)
        axes.text(1.005, floor, worker, transform=axes.get_yaxis_transform(), va="bottom", color=INK, fontsize=11)
    axes.set_ylim(_floor(len(workers) - 1) + 0.04, _floor(0) - 0.96)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return most


def _floor(lane: int) -> float:
    """Where a lane's zero is; lanes go down."""
    return lane + 1.0


def _strokes(drawn: Chart, axes: Axes, workers: Sequence[str], moves: Sequence[Moved], divisor: float) -> None:
    lane_of = {worker: lane for lane, worker in enumerate(workers)}
    for move in moves:
        if move.left not in lane_of or move.worker not in lane_of:
            continue
        start, end = (_floor(lane_of[worker]) - LANE / 8 for worker in (move.left, move.worker))
        colour = stand_in(HUES[move.begins][0])
        at = move.at_s / divisor
        (line,) = axes.plot([at, at], [start, end], color=colour, linewidth=1.4, alpha=0.9, solid_capstyle="butt")
        drawn.tip(line, _told(move))
        axes.plot([at], [end], marker="v" if end > start else "^", color=colour, markersize=6, linewidth=0)


def _worth(drawn: Chart, axes: Axes, moves: Sequence[Moved], divisor: float) -> None:
    """Two marks for each: the waiting that it was expected to save, and what it cost to prefill again."""
    for move in moves:
        at, saved_s, cost_s = move.at_s / divisor, max(LEAST_S, move.saved_s), max(LEAST_S, move.prefill_s)
        axes.plot([at, at], [cost_s, saved_s], color=SOFT, linewidth=0.9)
        (dot,) = axes.plot([at], [saved_s], marker="o", color=stand_in("sky"), markersize=5, linewidth=0)
        drawn.tip(dot, _told(move))
        axes.plot([at], [cost_s], marker="x", color=INK, markersize=5, linewidth=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("seconds")


def _legend(moves: Sequence[Moved]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(color=stand_in("blue"), alpha=0.45, label="running"),
        Patch(color=stand_in("purple"), alpha=0.65, label="waiting for it"),
    ]
    for begins in dict.fromkeys(move.begins for move in moves):
        hue, label = HUES[begins]
        handles.append(Line2D([], [], color=stand_in(hue), marker="v", markersize=6, label=label))
    handles.append(
        Line2D([], [], color=stand_in("sky"), marker="o", markersize=5, linewidth=0, label="waiting saved, as expected")
    )
    handles.append(Line2D([], [], color=INK, marker="x", markersize=5, linewidth=0, label="prefill that it repeats"))
    return handles


def _told(move: Moved) -> str:
    cost = "left nothing behind" if move.begins else f"{move.prefill_s:,.2f} s of prefill repeated"
    where = f"{move.left} to {move.worker} at {move.at_s:,.1f} s"
    return f"{move.session}: {where}, {move.saved_s:,.2f} s of waiting saved, {cost}"
