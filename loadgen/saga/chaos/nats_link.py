"""A TCP link between one process and NATS, on which messages can be lost, doubled and delayed (which reorders them).

Only what NATS delivers to the process is touched, message by message, and of it only the cell's own subjects and
answers to requests: JetStream's inner traffic is NATS's business. While nothing is wrong, bytes pass as they are.
"""

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

_TOUCHED: Final = (b"saga.", b"_INBOX.")
_CHUNK: Final = 1 << 16


class Weather(Struct, frozen=True):
    """How bad a link is: chances of each delivery, and the longest delay in seconds."""

    lose: float = 0.0
    double: float = 0.0
    late: float = 0.0
    latest_s: float = 0.0


CALM: Final = Weather()


class NatsLink:
    """Listens for one process; connects to NATS for it. `weather` may be changed at any time."""

    def __init__(self, upstream: Callable[[], str], random: Random) -> None:
        """`upstream`: URL of NATS, asked at each connection."""
        self.weather = CALM
        self.touched = {"lost": 0, "doubled": 0, "late": 0}
        self._upstream = upstream
        self._random = random
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._late: set[asyncio.TimerHandle] = set()

    async def open(self, host: str = "127.0.0.1") -> str:
        """Begins to listen; the URL for the process."""
        self._server = await asyncio.start_server(self._accept, host, 0)
        return f"nats://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Ends it with all its connections."""
        if self._server is not None:
            self._server.close()
        for timer in self._late:
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in list(self._ends):
            end.transport.abort()
        await asyncio.sleep(0)  # lets the transports go

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            place = urlsplit(self._upstream())
            nats_reader, nats_writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
            ends.append(nats_writer)
            self._ends.add(nats_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copied(reader, nats_writer))
                group.create_task(self._delivered(nats_reader, writer))
        except (OSError, ExceptionGroup):  # one end has gone: so does the other
            pass
        finally:
            for end in ends:
                end.transport.abort()
                self._ends.discard(end)

    async def _delivered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From NATS to the process, frame by frame."""
        while line := await reader.readline():
            kind, _, rest = line.partition(b" ")
            if kind not in (b"MSG", b"HMSG"):
                writer.write(line)
            else:
                frame = line + await reader.readexactly(int(rest.split()[-1]) + 2)
                self._deliver(rest, frame, writer)
            await writer.drain()
        raise ConnectionResetError

    def _deliver(self, head: bytes, frame: bytes, writer: asyncio.StreamWriter) -> None:
        weather, random = self.weather, self._random
        if weather is CALM or not head.startswith(_TOUCHED):
            writer.write(frame)
            return
        if random.uniform(0, 1) < weather.lose:
            self.touched["lost"] += 1
            return
        copies = 1
        if random.uniform(0, 1) < weather.double:
            self.touched["doubled"] += 1
            copies = 2
        for _ in range(copies):
            if random.uniform(0, 1) < weather.late:
                self.touched["late"] += 1
                self._later(random.uniform(0, weather.latest_s), frame, writer)
            else:
                writer.write(frame)

    def _later(self, delay_s: float, frame: bytes, writer: asyncio.StreamWriter) -> None:
        def write() -> None:
            self._late.discard(timer)
            if not writer.transport.is_closing():
                writer.write(frame)

        timer = asyncio.get_running_loop().call_later(delay_s, write)
        self._late.add(timer)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From one end to the other, until either goes. Raises OSError then."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    raise ConnectionResetError
