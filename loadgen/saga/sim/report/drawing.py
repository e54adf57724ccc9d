"""From a matplotlib figure to inline SVG: the page's font and colours, hover texts, and the same bytes every time.

Called by every chart. What charts show is theirs; how systems look is `palette`'s.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from saga.sim.report.palette import HUES, stand_in

POINTS: Final = 72.0  # of an inch; the SVG's unit, shown as CSS pixels
INK, SOFT, GRID = stand_in("ink"), stand_in("soft"), stand_in("grid")
LEGIBLE: Final = 0.76  # of its width, to which a drawing may shrink before its box scrolls
_TIP = "tip-"
_STYLE: Final[dict[RcKeyType, Any]] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: text takes the same room on every machine
    "font.size": 11.5,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11.5,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # names of systems and tenants are no formulas
    "axes.formatter.useoffset": False,
}


class Chart:
    """One figure while it is drawn. `tip` gives a thing on it a text to hover over."""

    def __init__(self, figure: Figure, name: str) -> None:
        self.figure = figure
        self.name = name
        self._tips: list[str] = []

    def tip(self, artist: Artist, text: str) -> None:
        """Shown by browsers when the pointer rests on the artist."""
        artist.set_gid(f"{_TIP}{len(self._tips)}")
        self._tips.append(text)

    def axes(self) -> Axes:
        """The only axes of the figure."""
        return self.figure.add_subplot()

    def svg(self, label: str) -> str:
        """The finished drawing; `label` is read out to those who cannot see it."""
        out = StringIO()
        with mpl.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return _for_page(out.getvalue(), label, self._tips)


@contextmanager
def chart(name: str, width: float, height: float) -> Iterator[Chart]:
    """A figure of so many CSS pixels, drawn in the page's style. `name`: unique on the page."""
    with mpl.rc_context(_STYLE):
        yield Chart(Figure(figsize=(width / POINTS, height / POINTS), dpi=POINTS, layout="constrained"), name)


def _for_page(svg: str, label: str, tips: list[str]) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace(' version="1.1"', "")
    svg = re.sub(r"<!--.*?-->\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # a hundredth of a pixel is enough
    svg = re.sub(rf'<g id="{_TIP}(\d+)">', lambda found: f"<g><title>{escape(tips[int(found[1])])}</title>", svg)
    svg = re.sub(r'<g id="[^"]*"/>\s*', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # matplotlib counts its groups anew in every figure of a page
    svg = svg.replace("'DejaVu Sans'", "var(--font)")
    for hue, (light, _) in HUES.items():
        svg = svg.replace(stand_in(hue), f"var(--{hue},{light})")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    svg = re.sub(r"<svg[^>]*>", "", svg, count=1)
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
        f'style="width:{float(width):.0f}px;min-width:{LEGIBLE * float(width):.0f}px">{svg.strip()}'
    )
