"""What each part of ours is worth: mean TCT of variants named `saga-<what>` over that of all of it, with intervals."""

from saga.sim.figures import Ratio, Report
from saga.sim.report.bars import Bar, draw_bars, limits
from saga.sim.report.compare import SAGA, condition_of, is_variant

WIDTH = 552
UNIT = f"mean TCT / that of {SAGA} (1 = the same)"


def ablation_bars(report: Report) -> list[str]:
    """One drawing for each condition, all on one scale; the variant that costs most is above."""
    found: dict[str, list[Bar]] = {}
    for ratio in report.ratios:
        # With the variant as the baseline of full saga, the ratio is its mean TCT over saga's.
        if ratio.system == SAGA and is_variant(ratio.baseline) and ratio.tct_ratio is not None:
            found.setdefault(condition_of(ratio).title, []).append(_bar(ratio, ratio.tct_ratio))
    edges = limits(bar for bars in found.values() for bar in bars)
    return [
        draw_bars(f"ablation {title}", title, UNIT, sorted(bars, key=lambda bar: -bar.value), edges, WIDTH)
        for title, bars in found.items()
    ]


def _bar(ratio: Ratio, value: float) -> Bar:
    name = ratio.baseline.removeprefix(SAGA).lstrip("-:")
    return Bar(name, value, ratio.ci95, f"{ratio.baseline}: {value:.3f} x the mean TCT of {SAGA}{interval(ratio)}")


def interval(ratio: Ratio) -> str:
    """In words; empty without one."""
    return f", 95 % interval {ratio.ci95[0]:.3f} to {ratio.ci95[1]:.3f}" if ratio.ci95 else ""
