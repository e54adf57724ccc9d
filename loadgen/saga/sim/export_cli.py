"""`saga trace export RECORDING... OUT`: live traffic as a trace. Called by the `saga` command."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from saga.kernel.record import RecordError
from saga.load.traces.files import WRITABLE, write_sessions
from saga.load.traces.session import TraceError
from saga.sim.exported import export

EXIT_USAGE = 2


def main(argv: Sequence[str]) -> int:
    """0, or 2 with one line on stderr when a file cannot be read or written."""
    flags = _parser().parse_args(argv)
    try:
        found = export(flags.recordings)
        written = write_sessions(flags.out, found.sessions, flags.to)
    except (RecordError, TraceError, OSError) as error:
        print(f"saga trace export: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{len(found.sessions)} workflows with {found.steps} steps written to {flags.out} ({flags.to})")
    if found.unfinished:
        print(f"  left out: {found.unfinished} steps that did not finish in these recordings")
    for lost in written.lost:
        print(f"  lost: {lost}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saga trace export",
        description="Writes what a live cell was asked for as a trace that `saga bench` replays: lengths, gaps, tools "
        "called or not, and which pages of prompts were equal; no text, no names of tenants or workflows.",
    )
    parser.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING", help="admission.*.record.gz")
    parser.add_argument("out", type=Path, metavar="OUT", help="where to; .gz is compressed")
    parser.add_argument("--to", choices=WRITABLE, default="recorded", help="format to write (default recorded)")
    return parser
