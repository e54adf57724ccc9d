"""`saga top`: a cell at work, in a terminal. Listens and asks; needs no console."""

import argparse
import asyncio
import contextlib
import time
from typing import Final

from rich.console import Console
from rich.live import Live

from saga.cli.operating import Cell, UsageError, acting, takes_state_dir
from saga.cli.top_text import frame
from saga.cli.top_watch import CellWatch
from saga.contract.messages import TenantsAnswer, TenantsAsk
from saga.contract.tenant_messages import TenantUse
from saga.runtime.bus import Incoming
from saga.runtime.errors import BusUnavailable, MessageError

LISTENS_S: Final = 1.6  # before the first frame: heartbeats come once a second
ASK_WITHIN_S: Final = 0.5
MOST_PAGES: Final = 8  # of tenants
LEAST_EVERY_S: Final = 0.2


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga top`."""
    parser = commands.add_parser(
        "top",
        help="a cell at work: workers, workflows, tenants, steps/s",
        description="Shows the cell of SAGA_NATS_URL and SAGA_CELL, or of the `saga up` that runs here, until Ctrl-C.",
    )
    takes_state_dir(parser)
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between frames (default 1)")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.set_defaults(act=acting("top", _top))


async def _top(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    if not flags.every >= LEAST_EVERY_S:
        raise UsageError(f"--every {flags.every:g} must be {LEAST_EVERY_S} or more")
    watch = CellWatch(time.monotonic())

    def hear(incoming: Incoming) -> None:
        watch.heard(incoming.message, time.monotonic())

    for subject in (cell.subjects.worker_presence(), cell.subjects.every_step_end()):
        await cell.bus.subscribe(subject, hear)
    await cell.bus.barrier()
    await asyncio.sleep(LISTENS_S)
    await _ask(cell, watch)
    if flags.once:
        out.print(frame(watch, cell.name, time.monotonic()))
        return
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError), Live(console=out, screen=True) as live:
        while True:
            watch.settle(time.monotonic())
            live.update(frame(watch, cell.name, time.monotonic()), refresh=True)
            await asyncio.sleep(flags.every)
            await _ask(cell, watch)


async def _ask(cell: Cell, watch: CellWatch) -> None:
    """What tenants use. A cell between two leaders answers a moment later."""
    uses: list[TenantUse] = []
    try:
        for _ in range(MOST_PAGES):
            ask = TenantsAsk(after=uses[-1].tenant if uses else "")
            answer = await cell.bus.request(cell.subjects.tenants_ask(), ask, ASK_WITHIN_S)
            if not isinstance(answer, TenantsAnswer):
                break
            uses += answer.tenants
            if not answer.more or not answer.tenants:
                break
    except (BusUnavailable, MessageError):
        watch.told(None)
        return
    watch.told(uses)
