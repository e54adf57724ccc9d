"""The HTTP client to engines: pooled connections, a last look at the lease before the first byte goes out.

Raises `EngineLostError` for everything that means "this engine will not answer"; the caller asks for another one.
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from saga.gateway.http_connection import Connection, EngineLostError, Reply, UnansweredError

# SGLang's uvicorn closes idle connections after 5 s: let go of ours first, so that none is reused while it closes.
IDLE_S: Final = 4.0
ABORT_TIMEOUT_S: Final = 2.0
# A machine or a cable that dies says nothing. An engine that is busy, or stopped, still acknowledges: its kernel does.
DEAD_LINK_S: Final = 6
_PROBE_AFTER_S: Final = 2
_PROBE_EVERY_S: Final = 1
_MAX_ENGINES: Final = 10_000


class LeaseLostError(Exception):
    """The lease ran out before the request could be written; nothing was sent."""


def watch_link(link: socket.socket) -> None:
    """Lets the system end a connection whose other end has acknowledged nothing for DEAD_LINK_S, in the middle of an
    answer or not. Where a system cannot be told how long, its own patience holds: minutes to hours."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", DEAD_LINK_S - _PROBE_AFTER_S),
        ("TCP_USER_TIMEOUT", 1000 * DEAD_LINK_S),  # of what was sent and not acknowledged
    ):
        if hasattr(socket, option):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Departure:
    """When a request left for its engine, and the question asked just before."""

    __slots__ = ("left_s", "may_leave")

    def __init__(self, may_leave: Callable[[], bool]) -> None:
        self.may_leave = may_leave
        self.left_s = 0.0  # monotonic, first byte written; 0: not yet


class _Engine:
    """Where an engine listens, and connections to it that wait for work."""

    __slots__ = ("head", "host", "idle", "port", "prefix", "tls")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/")
        self.head = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self.idle: deque[Connection] = deque()

    def request_head(self, path: str, body_bytes: int, more: bytes) -> bytes:
        """Request line and headers. `more`: header lines, each with its end."""
        return f"POST {self.prefix}{path} HTTP/1.1\r\n{self.head}{body_bytes}\r\n".encode() + more + b"\r\n"

    def take(self, now_s: float) -> Connection | None:
        """A connection used a moment ago, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable and now_s - connection.idle_since_s < IDLE_S:
                return connection
            connection.discard()
        return None

    def put(self, connection: Connection) -> None:
        """A connection that is free again."""
        now_s = connection.idle_since_s = time.monotonic()
        self.idle.append(connection)
        while self.idle and (now_s - self.idle[0].idle_since_s >= IDLE_S or not self.idle[0].usable):
            self.idle.popleft().discard()

    def close(self) -> None:
        """Close all that wait."""
        while self.idle:
            self.idle.pop().discard()


class EngineClient:
    """One connection pool for all engines."""

    def __init__(self, connect_s: float) -> None:
        """`connect_s`: for a new connection."""
        self._connect_s = connect_s
        self._engines: dict[str, _Engine] = {}

    async def post(self, engine_url: str, path: str, body: bytes, departure: Departure, headers: bytes = b"") -> Reply:
        """The engine's answer, its head read and its body not. Raises EngineLostError, LeaseLostError.

        `headers`: more lines of the request's head, each with its end.
        """
        engine = self._engine(engine_url)
        head = engine.request_head(path, len(body), headers)
        idle = engine.take(time.monotonic())
        if idle is not None:
            # Closed by the engine just as we wrote: that says nothing about the engine, and another idle one is as old.
            with contextlib.suppress(UnansweredError):
                return await self._ask(engine, idle, head, body, departure)
        return await self._ask(engine, await self._connect(engine), head, body, departure)

    async def _ask(
        self, engine: _Engine, connection: Connection, head: bytes, body: bytes, departure: Departure
    ) -> Reply:
        if not departure.may_leave():
            engine.put(connection)
            raise LeaseLostError
        reply = connection.send(head, body)
        departure.left_s = departure.left_s or time.monotonic()
        try:
            await reply.headed()
        except BaseException:
            reply.close()
            raise
        return reply

    async def abort(self, engine_url: str, rid: str) -> None:
        """Tells the engine to drop a request; the worker agent does it again when the lease ends."""
        with contextlib.suppress(EngineLostError, TimeoutError):
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                body = msgspec.json.encode({"rid": rid})
                reply = await self.post(engine_url, "/abort_request", body, Departure(lambda: True))
                try:
                    await reply.read()
                finally:
                    reply.close()

    async def close(self) -> None:
        """Closes all connections that serve nobody."""
        for engine in self._engines.values():
            engine.close()
        await asyncio.sleep(0)  # lets their transports go

    async def _connect(self, engine: _Engine) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                transport, connection = await loop.create_connection(
                    lambda: Connection(engine.put), engine.host, engine.port, ssl=True if engine.tls else None
                )
        except OSError as error:  # TimeoutError is one
            raise EngineLostError(str(error) or f"no connection within {self._connect_s} s") from error
        watch_link(transport.get_extra_info("socket"))
        return connection

    def _engine(self, url: str) -> _Engine:
        engine = self._engines.get(url)
        if engine is None:
            if len(self._engines) >= _MAX_ENGINES:
                for old in self._engines.values():
                    old.close()
                self._engines.clear()
            engine = self._engines[url] = _Engine(url)
        return engine
