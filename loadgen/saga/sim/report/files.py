"""Charts as files of their own, for documents: the page's SVG with its colours written out on a white ground.

Called by `saga bench report --figures`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from saga.sim.detail import RunDetail
from saga.sim.figures import Report
from saga.sim.report.curves import curves
from saga.sim.report.moves import moves_timeline
from saga.sim.report.tenants import most_normalised_s, service
from saga.sim.report.throughput import throughput_curves

LEAST_POINTS = 2  # of a curve
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def write_figures(folder: Path, report: Report, details: Sequence[RunDetail] = ()) -> list[Path]:
    """What can be drawn: mean TCT over pressure or load, tasks a minute against it, and each tenant's service over the
    time of a run, and steps that started elsewhere. Same report, same bytes."""
    drawn = [*_curves(folder, report), *_throughput(folder, report), *_services(folder, details)]
    return drawn + _moves(folder, details)


def _curves(folder: Path, report: Report) -> list[Path]:
    """One file for each workload and host tier."""
    written = []
    for heading, drawings in curves(report.runs, LEAST_POINTS):
        for svg in drawings:
            tier = re.findall(r"host tier (\w+)", svg)[0]
            axis = "pressure" if "pressure (KV demand" in svg else "load"
            written.append(_write(folder, f"tct-{heading}-{axis}-tier-{tier}", svg))
    return written


def _throughput(folder: Path, report: Report) -> list[Path]:
    """One file for each condition in which the share of KV that is filled was set."""
    return [
        _write(folder, f"throughput-{where.workload} on {where.cluster}-{where.at}-tier-{where.host_tier}", svg)
        for where, svg in throughput_curves(report.runs)
    ]


def _services(folder: Path, details: Sequence[RunDetail]) -> list[Path]:
    """One file for each run with several tenants; axes are those of the runs that it is compared with."""
    shown = [detail for detail in details if len(detail.tenants) > 1 and detail.samples]
    written = []
    for detail in shown:
        beside = [other for other in shown if other.workload == detail.workload]
        until_s = max(other.samples[-1].at_s for other in beside)
        most_s = max(map(most_normalised_s, beside))
        name = f"service-{detail.workload}-{detail.system}"
        written.append(_write(folder, name, service(name, detail, until_s, most_s)))
    return written


def _moves(folder: Path, details: Sequence[RunDetail]) -> list[Path]:
    """One file for each run in which steps started elsewhere than where they waited."""
    written = []
    for detail in details:
        if detail.moves and detail.samples:
            name = f"moves-{detail.workload}-on-{detail.cluster}-{detail.system}"
            written.append(_write(folder, name, moves_timeline(name, detail)))
    return written


def _write(folder: Path, name: str, svg: str) -> Path:
    path = folder / f"{re.sub('[ :]', '-', name)}.svg"
    path.write_text(standalone(svg) + "\n", encoding="utf-8")
    return path


def standalone(svg: str) -> str:
    """A drawing of the page that needs no page."""
    svg = svg.replace("var(--font)", FONT.replace("'", ""))
    svg = re.sub(r"var\(--[a-z]+,(#[0-9a-f]+)\)", r"\1", svg)
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)
