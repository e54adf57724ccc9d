"""The HTML report in one file: no script, no network, light, dark and on paper. Same input, same bytes.

Called by `saga bench sim --html` and `saga bench report`. Sections without data are left out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from saga.sim.detail import RunDetail
from saga.sim.figures import Report
from saga.sim.report.cache_results import CacheReport
from saga.sim.report.markup import Html, join, tag
from saga.sim.report.palette import css_variables
from saga.sim.report.sections import sections

LIGHT: Final = "--page:#f6f7f9;--link:#0b5cad;--hover:#f2f4f7;--ours:#fdf1e8;--good:#1a7f4b;--bad:#c0341d;"
DARK: Final = "--page:#0d1117;--link:#6cb6ff;--hover:#1d242d;--ours:#2b2119;--good:#4cc38a;--bad:#ff8570;"


def write_html(
    path: Path,
    report: Report,
    details: Sequence[RunDetail] = (),
    *,
    cache: CacheReport | None = None,
    ablation: Report | None = None,
) -> None:
    """Write the page. `ablation`: where systems named `saga-<what>` are; without it, those in `report`, if any."""
    path.write_text(as_html(report, details, cache=cache, ablation=ablation), encoding="utf-8")


def as_html(
    report: Report,
    details: Sequence[RunDetail] = (),
    *,
    cache: CacheReport | None = None,
    ablation: Report | None = None,
) -> str:
    """The page."""
    parts = list(sections(report, details, cache=cache, ablation=ablation or report))
    workloads = ", ".join(dict.fromkeys(run.workload for run in report.runs)) or "no runs"
    head = join(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"SAGA: systems compared on {workloads}"),
        tag("style", Html(_style())),
    )
    body = tag(
        "main",
        tag("h1", "Systems compared in virtual time"),
        tag("p", _lead(report), class_="soft"),
        tag("nav", *(tag("a", part.title, href=f"#{part.anchor}") for part in parts)),
        *(tag("section", tag("h2", part.title), tag("p", part.how), *part.body, id=part.anchor) for part in parts),
    )
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _lead(report: Report) -> str:
    def distinct(pick: Callable[[int], str]) -> str:
        return ", ".join(dict.fromkeys(pick(number) for number in range(len(report.runs))))

    runs = report.runs
    return (
        f"{len(runs):,} runs: {distinct(lambda n: runs[n].workload)} on {distinct(lambda n: runs[n].cluster)}; "
        f"{len({run.system for run in runs})} systems; seeds {distinct(lambda n: str(runs[n].seed))}. "
        "All times are virtual: the control plane is the production code, the engines are a model of their hardware."
    )


def _style() -> str:
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    light, dark = css_variables(dark=False) + LIGHT, css_variables(dark=True) + DARK
    return (
        f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light;--page:#fff}}}}\n{css}"
    )
