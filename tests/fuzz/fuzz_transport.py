"""HTTP without sockets: the server's own protocol and the gateway's engine client, joined to memory.

What goes through is what would go through a socket, byte for byte, in as many reads; the parsers on both sides are the
real ones.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpResponseParser


class Answer:
    """What a client makes of the bytes that it gets: one answer. The `on_` methods are httptools' callbacks."""

    def __init__(self, *, without_body: bool = False) -> None:
        """`without_body`: HEAD was asked."""
        self._parser = HttpResponseParser(self)
        self._without_body = without_body
        self.raw_bytes = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False
        self.malformed = ""

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self.raw_bytes += len(data)
        if self.done or self.malformed:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self.malformed = str(error)

    def on_message_begin(self) -> None:
        """As httptools."""
        self.status, self.headers, self.body = 0, {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """As httptools."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """As httptools."""
        self.status = self._parser.get_status_code()
        self.done = self._without_body and self.status >= 200

    def on_body(self, data: bytes) -> None:
        """As httptools."""
        self.body += data

    def on_message_complete(self) -> None:
        """As httptools; an interim answer is none."""
        self.done = self.done or self.status >= 200


class ClientSide(asyncio.Transport):
    """The server's transport to one client."""

    def __init__(
        self, protocol: asyncio.Protocol, leaves_within: int = -1, *, slow: bool = False, head: bool = False
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._leaves_within = leaves_within
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.slow = slow  # while so, nothing is taken
        self._kept: list[bytes] = []
        self._paused = False
        self.answer = Answer(without_body=head)
        self.over: asyncio.Future[None] = self._loop.create_future()
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """The client sends."""
        if not self._closing:
            self._protocol.data_received(data)

    def take(self) -> None:
        """The slow client reads all that has piled up."""
        self.slow = False
        kept, self._kept = self._kept, []
        for data in kept:
            self._take(data)
        if self._paused and not self._closing:
            self._paused = False
            self._protocol.resume_writing()

    def leave(self) -> None:
        """The client is gone."""
        self._end(ConnectionResetError("the client left"))

    def _take(self, data: bytes) -> None:
        self.answer.feed(data)
        if 0 <= self._leaves_within < self.answer.raw_bytes:
            self.leave()
        elif (self.answer.done or self.answer.malformed) and not self.over.done():
            self.over.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)
            if not self.over.done():
                self.over.set_result(None)

    # --- asyncio.Transport -------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self.slow:
            self._kept.append(bytes(data))
            if not self._paused:
                self._paused = True
                self._protocol.pause_writing()
        else:
            self._take(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 10_000_000 if self.slow else 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self.slow:
            self.take()
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def pause_reading(self) -> None:
        """What is fed is fed."""

    def resume_reading(self) -> None:
        """The same."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""


class EngineSide(asyncio.Transport):
    """The gateway's transport to an engine: each request goes to `serve(path, body, reply, hang_up)`."""

    def __init__(self, protocol: Any, serve: Callable[..., None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self.paused = False
        self._held: list[bytes] = []
        protocol.connection_made(self)

    def writelines(self, list_of_data: Any) -> None:
        head, body = list_of_data
        path = head.split(b" ", 2)[1].decode()
        self._loop.call_soon(self._serve, path, body, self.reply, self.hang_up)

    def reply(self, data: bytes) -> None:
        """Bytes from the engine."""
        if self._closing:
            return
        if self.paused:
            self._held.append(data)
        else:
            self._protocol.data_received(data)

    def hang_up(self) -> None:
        """The engine closes the connection."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(None)

    def write(self, data: Any) -> None:
        raise AssertionError(f"requests come by writelines, not {data[:20]!r}")

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        held, self._held = self._held, []
        for data in held:
            self.reply(data)
