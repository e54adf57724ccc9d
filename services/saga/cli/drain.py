"""`saga drain`: a worker is to be empty; its sessions go on elsewhere from their next step on, and nothing is lost."""

import argparse
import asyncio
import time
from typing import Final

from rich.console import Console

from saga.cli.asking import workers_of
from saga.cli.operating import Cell, NotDoneError, UsageError, acting, print_json, takes_state_dir
from saga.contract.drains import DRAINS_BUCKET, DrainRow, check_worker, write_drain
from saga.contract.ids import WorkerId
from saga.contract.messages import Heartbeat
from saga.contract.why_messages import WorkerTold
from saga.runtime.bus import Incoming

LOOK_EVERY_S: Final = 0.5
HEARD_WITHIN_S: Final = 10.0  # a worker that lives has said that it heard by then
DEFAULT_WAIT_S: Final = 600.0


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga drain`."""
    parser = commands.add_parser(
        "drain",
        help="let a worker run empty before it is stopped",
        description="Nothing new starts there from the next moment on. What runs there runs to its end; what waits "
        "for it, and the sessions at home there, go on elsewhere with their next step. Stays so, also when the worker "
        "is started again, until --undo.",
    )
    takes_state_dir(parser)
    parser.add_argument("worker", metavar="WORKER", help="its id; `saga workers` lists them")
    parser.add_argument("--undo", action="store_true", help="let it serve again")
    parser.add_argument("--wait", action="store_true", help="return when it is empty, and say how far it is meanwhile")
    parser.add_argument("--within", type=float, default=DEFAULT_WAIT_S, metavar="S", help="give up after (%(default)s)")
    parser.add_argument("--force", action="store_true", help="even the last worker of its pool: its steps will wait")
    parser.add_argument("--json", action="store_true", help="for programs: what it has left, at the end")
    parser.set_defaults(act=acting("drain", _drain))


async def _drain(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    try:
        worker_id = check_worker(flags.worker)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if flags.within <= 0:
        raise UsageError(f"--within {flags.within:g} must be above 0")
    rows = await cell.rows(DRAINS_BUCKET)
    if flags.undo:
        if await rows.get(worker_id) is None:
            raise NotDoneError(f"{worker_id} is not being drained")
        await rows.delete(worker_id)
        out.print(f"{worker_id} serves again.", soft_wrap=True)
        return
    workers = await workers_of(cell)
    _refuse_unwise(worker_id, workers, force=flags.force)
    await rows.put(worker_id, write_drain(DrainRow(said_at=time.time())))
    if not flags.wait:
        if flags.json:
            print_json(_named(worker_id, workers))
            return
        out.print(f"{worker_id} is given nothing new. `saga drain {worker_id} --wait` says when it is empty.")
        return
    last = await _until_empty(cell, worker_id, flags.within, out, quiet=flags.json)
    if flags.json:
        print_json(last)
        return
    out.print(f"{worker_id} is empty.")


def _refuse_unwise(worker_id: WorkerId, workers: list[WorkerTold], *, force: bool) -> None:
    mine = _named(worker_id, workers)
    others = [w for w in workers if w.pool == mine.pool and w.worker != worker_id and w.standing == "serving"]
    if not others and not force:
        raise NotDoneError(
            f"{worker_id} is the last worker that serves {mine.pool!r}: its steps would wait until another comes. "
            "Start one first, or say --force"
        )


def _named(worker_id: WorkerId, workers: list[WorkerTold]) -> WorkerTold:
    for worker in workers:
        if worker.worker == worker_id:
            return worker
    known = ", ".join(worker.worker for worker in workers[:20]) or "none"
    raise NotDoneError(f"no worker {worker_id} is known; known are {known}")


async def _until_empty(cell: Cell, worker_id: WorkerId, within_s: float, out: Console, *, quiet: bool) -> WorkerTold:
    """Empty: no step runs or waits there, no session is at home there, and the agent has no session tag open."""
    tags = _Tags(worker_id)
    heard = await cell.bus.subscribe(cell.subjects.worker_presence(), tags.hear)
    started_s, told = time.monotonic(), ""
    try:
        while True:
            now = _named(worker_id, await workers_of(cell))
            passed_s = time.monotonic() - started_s
            left = f"{now.leases} steps run, {now.waiting_steps} wait, {now.homed_sessions} sessions at home"
            left += "" if tags.open is None else f", {tags.open} session tags open"
            if (
                now.standing == "draining"
                and not now.leases + now.waiting_steps + now.homed_sessions
                and tags.open == 0
            ):
                return now
            if now.standing == "away":
                raise NotDoneError(f"{worker_id} is away: {now.reason}. What ran there goes on elsewhere")
            if now.standing != "draining" and passed_s > HEARD_WITHIN_S:
                raise NotDoneError(f"{worker_id} does not say that it heard: its agent is older than this command")
            if passed_s > within_s:
                raise NotDoneError(f"{worker_id} is not empty after {within_s:g} s: {left}. It goes on draining")
            if left != told and not quiet:
                out.print(f"{worker_id}: {left}", soft_wrap=True)
                told = left
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await heard.drain()


class _Tags:
    """Session tags that the worker has open, as its heartbeats say."""

    def __init__(self, worker_id: WorkerId) -> None:
        self._worker_id = worker_id
        self.open: int | None = None  # None: it has not been heard yet

    def hear(self, incoming: Incoming) -> None:
        """A heartbeat of anybody."""
        message = incoming.message
        if isinstance(message, Heartbeat) and message.worker.worker_id == self._worker_id and message.draining:
            self.open = message.open_session_tags
