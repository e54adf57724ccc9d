"""Service that each tenant has got over time, over its weight where weights are known."""

from typing import Final

from matplotlib.ticker import StrMethodFormatter

from saga.sim.detail import RunDetail
from saga.sim.report.drawing import chart
from saga.sim.report.lines import Line, draw, panel, time_unit
from saga.sim.report.palette import SPARE, Look

WIDTH, HEIGHT = 552, 360
MOST_POINTS: Final = 200
DASHES: Final = ("-", "--", ":")


def service(name: str, detail: RunDetail, until_s: float, most_s: float) -> str:
    """One line for each tenant. `until_s`, `most_s`: ends of the axes, to compare with another run."""
    divisor, unit = time_unit(until_s)
    samples = detail.samples[:: max(1, len(detail.samples) // MOST_POINTS)]
    with chart(name, WIDTH, HEIGHT) as drawn:
        axes = panel(drawn, detail.system)
        axes.set_xlim(0.0, until_s / divisor)
        axes.set_ylim(0.0, most_s * 1.04)
        axes.set_xlabel(f"time since the run's start ({unit})")
        axes.set_ylabel("engine-seconds / weight" if detail.weights else "engine-seconds")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        draw(
            drawn,
            axes,
            [
                Line(
                    name=tenant,
                    look=Look(SPARE[number % len(SPARE)], DASHES[number // len(SPARE) % len(DASHES)]),
                    xs=tuple(sample.at_s / divisor for sample in samples),
                    ys=tuple(normalised_s(detail, number, sample.service_s[number]) for sample in samples),
                    bold=True,
                    note=f" (weight {detail.weights[number]:g})" if detail.weights else "",
                )
                for number, tenant in enumerate(detail.tenants)
            ],
        )
        return drawn.svg(f"{detail.system}: cumulative service of each tenant over time")


def normalised_s(detail: RunDetail, number: int, service_s: float) -> float:
    """Over the tenant's weight, if known."""
    return service_s / detail.weights[number] if detail.weights else service_s


def most_normalised_s(detail: RunDetail) -> float:
    """What the tenant with the most has got in the end."""
    last = detail.samples[-1].service_s if detail.samples else ()
    return max((normalised_s(detail, number, service_s) for number, service_s in enumerate(last)), default=0.0)
