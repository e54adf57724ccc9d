"""A tiny service for tests of the supervisor: fake_service.py KIND [PORT]. FAKE_JOURNAL gets its name at the end.

Kinds: `plain`, `gateway` (answers /readyz on PORT), `refuse` (cannot start), `broken` (dies at once), `stubborn`
(does not stop when asked).
"""

import asyncio
import os
import sys
from pathlib import Path

from saga.runtime.app import App, run
from saga.runtime.errors import StartError


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ready, whatever is asked."""
    await reader.readline()
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    await writer.drain()
    writer.close()


def note_end() -> None:
    """Says that this service came to a proper end."""
    with Path(os.environ["FAKE_JOURNAL"]).open("a") as journal:
        journal.write(f"{os.environ['FAKE_NAME']}\n")


async def serve(app: App) -> None:
    """One of the kinds above."""
    kind = sys.argv[1]
    if kind == "refuse":
        raise StartError("unknown profile 'x'; known are a, b")
    if kind == "broken":
        raise ValueError("this is broken")
    bus = await app.connect()
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[2])) if kind == "gateway" else None
    await app.stopping.wait()
    if kind == "stubborn":
        await asyncio.Event().wait()
    if server is not None:
        server.close()
    await bus.drain()
    note_end()


if __name__ == "__main__":
    run(serve, name=os.environ["FAKE_NAME"])
