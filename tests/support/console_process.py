"""A console inside a test, over a real NATS, with a spoken cell to watch."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
from spoken_cell import SpokenCell

from saga.console.config import ConsoleSettings
from saga.console.service import Console
from saga.runtime.app import App
from saga.runtime.bus_nats import NatsBus
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import Shared

DEFAULTS = ConsoleSettings(port=0)


@contextlib.asynccontextmanager
async def console(nats_url: str, **settings: object) -> AsyncIterator[Console]:
    """One that listens on a free port."""
    async with asyncio.TaskGroup() as group:
        app = App("console", Shared(), group)
        bus = await NatsBus.connect(nats_url, name="console", cell="main")
        app.attach(bus)
        made = Console(msgspec.structs.replace(DEFAULTS, **settings), bus, MonotonicClock())
        living = app.spawn(made.live(app), name="console")
        try:
            async with asyncio.timeout(30):
                while not made.port:
                    assert not living.done(), "it ended before it listened"
                    await asyncio.sleep(0.02)
            yield made
        finally:
            app.stopping.set()
            await living
            app.cancel_all()
            await bus.close()


@contextlib.asynccontextmanager
async def spoken(nats_url: str, **making: object) -> AsyncIterator[SpokenCell]:
    """A cell that speaks while the block lasts."""
    bus = await NatsBus.connect(nats_url, name="spoken", cell="main")
    cell = SpokenCell(**making)
    cell.at = time.time()
    await cell.answer_tenants(bus)
    speaking = asyncio.create_task(cell.say(bus, 600.0))
    try:
        yield cell
    finally:
        speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await speaking
        await bus.close()
