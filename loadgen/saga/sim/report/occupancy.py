"""KV of each worker over time: what running requests hold, what only the cache holds, and the capacity above both."""

from typing import Final

from saga.sim.detail import RunDetail
from saga.sim.report.drawing import INK, SOFT, chart
from saga.sim.report.lines import time_unit
from saga.sim.report.palette import stand_in

WIDTH: Final = 552
ROW_PX: Final = 84
EDGES_PX: Final = 86
MOST_WORKERS: Final = 8
MOST_POINTS: Final = 240


def occupancy(name: str, detail: RunDetail, until_s: float) -> str:
    """A row for each worker, at most MOST_WORKERS. `until_s`: end of the axis, to compare with another run."""
    shown = range(min(len(detail.workers), MOST_WORKERS))
    divisor, unit = time_unit(until_s)
    every = max(1, len(detail.samples) // MOST_POINTS)
    samples = detail.samples[::every]
    at = [sample.at_s / divisor for sample in samples]
    scale = 1e3 if detail.kv_tokens < 2e6 else 1e6
    with chart(name, WIDTH, EDGES_PX + ROW_PX * len(shown)) as drawn:
        rows = drawn.figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)
        for worker in shown:
            axes = rows[worker][0]
            held, cached = axes.stackplot(
                at,
                [sample.held_tokens[worker] / scale for sample in samples],
                [sample.cached_tokens[worker] / scale for sample in samples],
                colors=[stand_in("blue"), stand_in("sky")],
                labels=["held by running requests", "only cached"] if worker == 0 else [],
            )
            held.set(alpha=0.95, linewidth=0)
            cached.set(alpha=0.45, linewidth=0)
            (line,) = axes.plot(
                [0.0, until_s / divisor],
                [detail.kv_tokens / scale] * 2,
                color=INK,
                linestyle="--",
                linewidth=1.2,
                label="capacity" if worker == 0 else None,
            )
            drawn.tip(line, f"capacity of {detail.workers[worker]}: {detail.kv_tokens:,} tokens")
            axes.set_xlim(0.0, until_s / divisor)
            axes.set_ylim(0.0, detail.kv_tokens / scale * 1.12)
            axes.text(
                1.0, 1.02, detail.workers[worker], transform=axes.transAxes, ha="right", color=SOFT, fontsize=10.5
            )
        rows[0][0].set_title(detail.system, pad=10)
        rows[-1][0].set_xlabel(f"time since the run's start ({unit})")
        drawn.figure.supylabel("KV (thousand tokens)" if scale < 1e6 else "KV (million tokens)", color=SOFT, size=11.5)
        drawn.figure.legend(loc="outside lower center", ncols=3)
        return drawn.svg(f"{detail.system}: KV of each worker over time")
