"""Ours against the best baseline under every condition, as one chart."""

from saga.sim.figures import Report
from saga.sim.report.ablation import interval
from saga.sim.report.bars import Bar, draw_bars, limits
from saga.sim.report.compare import SAGA, best_baseline, by_condition, ratio_between

WIDTH = 900


def verdict_bars(report: Report) -> str:
    """The ratios to the best baselines as bars; empty without any."""
    bars = []
    for condition, systems in by_condition(report.runs).items():
        best = best_baseline(systems)
        ratio = ratio_between(report, condition, SAGA, best)
        if ratio is not None and ratio.tct_ratio is not None:
            told = f"{condition.title}: {ratio.tct_ratio:.3f} x as fast as {best}{interval(ratio)}"
            bars.append(Bar(condition.title, ratio.tct_ratio, ratio.ci95, told))
    unit = f"mean TCT of the best baseline / that of {SAGA} (right of 1: {SAGA} is faster)"
    return draw_bars("glance", "", unit, bars, limits(bars), WIDTH) if bars else ""
