"""`saga bench report`: one HTML page from figures that earlier commands saved. Called by `saga.load.cli`."""

import argparse
from pathlib import Path

from rich.console import Console

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
    report.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page to write")
    report.add_argument("--details", type=Path, metavar="FILE", help="of some of the runs, for charts over time")
    report.add_argument("--ablation", type=Path, metavar="FILE", help="of bench sim, with systems named saga-<what>")
    report.add_argument("--cache", type=Path, metavar="FILE", help="of bench cache")


def run(flags: argparse.Namespace, out: Console) -> int:
    """Write the page; 0. Raises SavedError when a file is not what it should be."""
    html: Path = flags.html
    if html.is_dir() or not html.parent.is_dir():
        raise SavedError(f"--html {html}: expected a file in a folder that exists")
    report = read_report(flags.json)
    details = read_details(flags.details) if flags.details else ()
    ablation = read_report([flags.ablation]) if flags.ablation else None
    cache = read_cache(flags.cache) if flags.cache else None
    from saga.sim.report.page import write_html  # noqa: PLC0415 - matplotlib takes a while to load; other commands need none

    write_html(html, report, details, cache=cache, ablation=ablation)
    out.print(f"{html}: {len(report.runs):,} runs", soft_wrap=True)
    return 0
