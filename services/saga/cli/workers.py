"""`saga workers`: which workers a cell has, how they stand, and what is known against them."""

import argparse

from rich.console import Console
from rich.table import Table

from saga.cli.asking import workers_of
from saga.cli.operating import Cell, acting, print_json, takes_state_dir


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga workers`."""
    parser = commands.add_parser(
        "workers",
        help="which workers there are, and how they stand",
        description="Standing: serving; draining (`saga drain`); quarantined or on probation, with the reason; away. "
        "`expected` and `cached`: tokens of recent prompts there, as advertised and as the engine counted.",
    )
    takes_state_dir(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(act=acting("workers", _show))


async def _show(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    workers = await workers_of(cell)
    if flags.json:
        print_json(workers)
        return
    if not workers:
        out.print("No worker has said hello to this placement yet.")
        return
    heads = ("steps", "waiting", "sessions", "KV tokens", "pages", "expected", "cached", "heard")
    table = Table("worker", "standing", *heads, "pool", "engine", box=None, pad_edge=False)
    for one in workers:
        standing = f"{one.standing}: {one.reason}" if one.reason else one.standing
        counts = (
            one.leases, one.waiting_steps, one.homed_sessions, one.homed_tokens, one.resident_pages,
            one.expected_tokens, one.cached_tokens,
        )  # fmt: skip
        heard = f"{one.seen_s:.1f} s ago"
        table.add_row(one.worker, standing, *(f"{count:,}" for count in counts), heard, one.pool, one.engine_url)
    out.print(table)
