"""Charts as files of their own, for documents: the page's SVG with its colours written out on a white ground.

Called by `saga bench report --figures`.
"""

import re
from pathlib import Path

from saga.sim.figures import Report
from saga.sim.report.curves import curves

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def write_figures(folder: Path, report: Report) -> list[Path]:
    """One file for each workload and host tier: mean TCT over pressure or load. Same report, same bytes."""
    written = []
    for heading, drawings in curves(report.runs):
        for svg in drawings:
            tier = re.findall(r"host tier (\w+)", svg)[0]
            axis = "pressure" if "pressure (KV demand" in svg else "load"
            path = folder / f"tct-{heading.replace(' ', '-')}-{axis}-tier-{tier}.svg"
            path.write_text(standalone(svg) + "\n", encoding="utf-8")
            written.append(path)
    return written


def standalone(svg: str) -> str:
    """A drawing of the page that needs no page."""
    svg = svg.replace("var(--font)", FONT.replace("'", ""))
    svg = re.sub(r"var\(--[a-z]+,(#[0-9a-f]+)\)", r"\1", svg)
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)
