"""`saga bench report`: page, tables and curves from figures that earlier commands saved. Called by `saga.load.cli`."""

import argparse
from pathlib import Path

from rich.console import Console

from saga.sim.figures import Report
from saga.sim.report.markdown import markdown
from saga.sim.report.saved import SavedError, read_cache, read_details, read_report


def add_parser(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `report` to the kinds of benchmark."""
    report = kinds.add_parser(
        "report",
        help="make an HTML page from saved figures",
        description="Merge the JSON files of earlier comparisons into one HTML page with tables and charts.",
    )
    report.add_argument(
        "--json", type=Path, action="append", required=True, metavar="FILE", help="of bench sim; may be repeated"
    )
    report.add_argument("--html", type=Path, metavar="FILE", help="the page to write")
    report.add_argument("--markdown", type=Path, metavar="FILE", help="tables for documents, to write")
    report.add_argument("--figures", type=Path, metavar="DIR", help="curves as SVG files for documents, to write there")
    report.add_argument("--details", type=Path, metavar="FILE", help="of some of the runs, for charts over time")
    report.add_argument("--ablation", type=Path, metavar="FILE", help="of bench sim, with systems named saga-<what>")
    report.add_argument("--cache", type=Path, metavar="FILE", help="of bench cache")


def run(flags: argparse.Namespace, out: Console) -> int:
    """Write what is asked for; 0. Raises SavedError when a file is not what it should be."""
    if flags.html is None and flags.markdown is None and flags.figures is None:
        raise SavedError("nothing to write: expected --html FILE, --markdown FILE or --figures DIR")
    for path in filter(None, (flags.html, flags.markdown)):
        if path.is_dir() or not path.parent.is_dir():
            raise SavedError(f"{path}: expected a file in a folder that exists")
    report = read_report(flags.json)
    out.print(f"{len(report.runs):,} runs", soft_wrap=True)
    if flags.markdown is not None:
        flags.markdown.write_text(markdown(report), encoding="utf-8")
        out.print(str(flags.markdown), soft_wrap=True)
    if flags.figures is not None:
        from saga.sim.report.files import write_figures  # noqa: PLC0415 - matplotlib takes a while to load

        flags.figures.mkdir(parents=True, exist_ok=True)
        details = read_details(flags.details) if flags.details else ()
        for path in write_figures(flags.figures, report, details):
            out.print(str(path), soft_wrap=True)
    if flags.html is not None:
        _write_page(flags, report)
        out.print(str(flags.html), soft_wrap=True)
    return 0


def _write_page(flags: argparse.Namespace, report: Report) -> None:
    details = read_details(flags.details) if flags.details else ()
    ablation = read_report([flags.ablation]) if flags.ablation else None
    cache = read_cache(flags.cache) if flags.cache else None
    from saga.sim.report.page import write_html  # noqa: PLC0415 - as above

    write_html(flags.html, report, details, cache=cache, ablation=ablation)
