"""A command's way into a running cell: connect, act, say in one line what went wrong. For `saga tenants | keys`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from saga.cli.graph_ask import nats_url
from saga.contract.subjects import Subjects, kv_bucket
from saga.runtime import log
from saga.runtime.bus import Bus, KeyValue
from saga.runtime.bus_nats import NatsBus
from saga.runtime.config import load_shared
from saga.runtime.errors import BusUnavailable, StartError
from saga.runtime.nats_access import access_of

EXIT_NOT_DONE: Final = 1  # the cell answers, but has no such thing or could not do it
EXIT_USAGE: Final = 2
PIPE_WIDTH: Final = 240


class NotDoneError(Exception):
    """What was asked for cannot be done. The text says why and what to do."""


class UsageError(Exception):
    """What was asked for makes no sense. The text says what would."""


class Cell:
    """One cell, as a command sees it."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.bus = bus
        self.subjects = Subjects(name)
        self.name = name

    async def rows(self, bucket: str) -> KeyValue:
        """What operators say, by key."""
        return await self.bus.kv(kv_bucket(self.name, bucket))


Act = Callable[[argparse.Namespace, Cell, Console], Awaitable[None]]


def takes_state_dir(parser: argparse.ArgumentParser) -> None:
    """The flag that says which `saga up` is meant."""
    parser.add_argument("--state-dir", type=Path, default=Path(".saga"), metavar="DIR", help="of `saga up`")


def acting(command: str, act: Act) -> Callable[[argparse.Namespace], int]:
    """A command's function: connects to the cell of SAGA_NATS_URL and SAGA_CELL, or of the `saga up` that runs here."""

    async def run(flags: argparse.Namespace) -> None:
        name = os.environ.get("SAGA_CELL", "main")
        bus = await NatsBus.connect(
            nats_url(os.environ, flags.state_dir), name=command, cell=name, access=access_of(load_shared())
        )
        try:
            await act(flags, Cell(bus, name), console())
        finally:
            await bus.close()

    def main(flags: argparse.Namespace) -> int:
        log.configure(command, level="error")  # a command's output is what it was asked for
        try:
            asyncio.run(run(flags))
        except (StartError, UsageError) as error:
            return refuse(command, str(error), EXIT_USAGE)
        except NotDoneError as error:
            return refuse(command, str(error), EXIT_NOT_DONE)
        except BusUnavailable as error:
            return refuse(command, f"NATS does not answer as it should: {error}", EXIT_NOT_DONE)
        return 0

    return main


def console() -> Console:
    """Where a command's output goes."""
    return Console(highlight=False, width=_width())


def _width() -> int | None:
    """Of what reads the output: tables are wide, and a file or a pipe has no edge."""
    return None if sys.stdout.isatty() else PIPE_WIDTH


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever is shown
    """For programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def refuse(command: str, text: str, code: int) -> int:
    """One line on stderr; the exit code."""
    print(f"saga {command}: {text}", file=sys.stderr)
    return code
