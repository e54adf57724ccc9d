"""Command line of `saga trace`: what a trace is like, and traces of one format as another.

Called by the `saga` command with what follows `trace`. The work is in `traces`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from saga.load.traces.files import FORMATS, WRITABLE, read_sessions, write_sessions
from saga.load.traces.session import Sessions, TraceError
from saga.load.traces.stats import Quantiles, TraceStats, trace_stats

EXIT_USAGE = 2


def main(argv: Sequence[str]) -> int:
    """Run `saga trace ...`; 0, or 2 with one line on stderr when a file cannot be read or written."""
    flags = _parser().parse_args(argv)
    out, errors = Console(soft_wrap=False), Console(stderr=True, highlight=False)
    try:
        sessions = read_sessions(flags.file, skip_bad=flags.skip_bad, file_format=flags.format)
        if flags.kind == "stats":
            _stats(flags, sessions, out)
        else:
            _convert(flags, sessions, out)
    except TraceError as error:
        print(f"saga trace: {error}", file=sys.stderr)
        return EXIT_USAGE
    if sessions.skipped:
        errors.print(f"{sessions.skipped} bad lines skipped", style="yellow")
    return 0


def _stats(flags: argparse.Namespace, sessions: Sessions, out: Console) -> None:
    stats = trace_stats(sessions)
    if flags.json:
        print(msgspec.json.format(msgspec.json.encode(stats), indent=2).decode())
    else:
        print_stats(out, flags.file.name, stats)


def _convert(flags: argparse.Namespace, sessions: Sessions, out: Console) -> None:
    if flags.out.resolve() == flags.file.resolve():
        raise TraceError(f"{flags.out}: expected another file than the one that is read")
    written = write_sessions(flags.out, sessions, flags.to)
    out.print(
        f"{len(sessions)} sessions read ({sessions.format}), {len(written.lines)} lines written ({flags.to})",
        soft_wrap=True,
    )
    for lost in written.lost:
        out.print(f"  lost: {lost}", style="dim", highlight=False, soft_wrap=True)


def print_stats(out: Console, name: str, stats: TraceStats) -> None:
    """Totals, then a table of quantiles."""
    hit = "-" if stats.ideal_hit_rate is None else f"{stats.ideal_hit_rate:.1%}"
    with_subagents = f" in {stats.sessions_with_subagents} sessions" if stats.subagents else ""
    blocks = ", ".join(map(str, stats.block_tokens))
    out.print(f"{name}: {stats.format} format, blocks of {blocks} tokens", highlight=False)
    out.print(
        f"{stats.sessions:,} sessions, {stats.turns:,} turns, {stats.steps:,} steps; {stats.prompt_tokens / 1e6:,.1f} "
        f"M prompt tokens, {stats.output_tokens / 1e6:,.2f} M output tokens\n"
        f"{stats.subagents:,} sub-agents{with_subagents}, {stats.subagent_steps:,} steps of theirs; "
        f"{stats.drops:,} prompts shorter than the last one\n"
        f"ideal hit rate: {hit} of prompt tokens, with an infinite cache",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("main agents", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for column in ("P50", "P90", "P99", "values"):
        table.add_column(column, justify="right", no_wrap=True)
    rows: tuple[tuple[str, str, Quantiles], ...] = (
        ("steps per session", "steps", stats.steps_per_session),
        ("turns per session", "turns", stats.turns_per_session),
        ("steps per turn", "steps", stats.steps_per_turn),
        ("input per step", "tokens", stats.input_tokens_per_step),
        ("new per step", "tokens", stats.new_tokens_per_step),
        ("output per step", "tokens", stats.output_tokens_per_step),
        ("gap after tool use", "s", stats.gap_after_tool_s),
        ("gap after end of turn", "s", stats.gap_after_turn_s),
    )
    for label, unit, found in rows:
        cells = (_number(value) for value in (found.p50, found.p90, found.p99))
        table.add_row(label, unit, *cells, f"{found.count:,}")
    out.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if value < 100 and value != int(value) else f"{value:,.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="saga trace", description="Looks at traces of agent sessions, converts them.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    stats = kinds.add_parser("stats", help="what a trace is like", description="Lengths, gaps and the ideal hit rate.")
    stats.add_argument("file", type=Path, metavar="FILE", help="a trace, plain or .gz")
    stats.add_argument("--json", action="store_true", help="as JSON")
    convert = kinds.add_parser(
        "convert", help="write a trace in another format", description="Write a trace in another format."
    )
    convert.add_argument("file", type=Path, metavar="IN", help="a trace, plain or .gz")
    convert.add_argument("out", type=Path, metavar="OUT", help="where to; .gz is compressed")
    convert.add_argument("--to", choices=WRITABLE, default="recorded", help="format to write (default recorded)")
    for kind in (stats, convert):
        kind.add_argument("--format", choices=FORMATS, help="format of the file (default: seen from its content)")
        kind.add_argument("--skip-bad", action="store_true", help="count and leave out lines that cannot be read")
    return parser
