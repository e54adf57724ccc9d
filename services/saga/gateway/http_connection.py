"""One connection to an engine, and the answer that comes over it.

A connection of our own instead of aiohttp's client because this is the gateway's hottest path: a piece of a stream goes
from socket to socket in one callback, with no task woken in between. Under full load (32 pieces a step) that took the
gateway from 2.5 to 1.8 ms of CPU per step, NATS and all, and the mesh from 140 to 175 steps/s on two cores.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from saga.gateway.http1 import HEAD_END, MAX_HEAD_BYTES, Body, Head, parse_head

LOOK_AGAIN_S: Final = 0.01  # at a client that was too slow


class EngineLostError(Exception):
    """Refused, reset, ended early or aborted: this engine does not answer this request."""


class Reply:
    """The answer to one request, as it arrives. Used by one task."""

    __slots__ = ("_arrived", "_body", "_connection", "_error", "_head_bytes", "_pieces", "_sink", "begun", "head")

    def __init__(self, connection: "Connection") -> None:
        self._connection: Connection | None = connection
        self._arrived: asyncio.Future[None] | None = None
        self._head_bytes = b""
        self._body: Body | None = None
        self._pieces: list[bytes] = []
        self._sink: Callable[[bytes], None] | None = None
        self._error: Exception | None = None
        self.head: Head | None = None
        self.begun = False  # any byte has arrived

    @property
    def status(self) -> int:
        """HTTP status. Await `headed` first."""
        return self.head.status if self.head else 0

    @property
    def done(self) -> bool:
        """The whole answer has arrived."""
        return self._body is not None and self._body.done

    async def headed(self) -> None:
        """Returns when the head is here. Raises EngineLostError."""
        while self.head is None:
            await self._more()

    async def some(self) -> bytes:
        """What has arrived of the body since, at least one byte; nothing at its end. Raises EngineLostError."""
        while not self._pieces:
            if self.done:
                return b""
            await self._more()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def read(self) -> bytes:
        """The whole body. Raises EngineLostError."""
        while not self.done:
            await self._more()
        return b"".join(self._pieces)

    async def pump(self, sink: Callable[[bytes], None], ready: Callable[[], bool]) -> None:
        """Hands each piece to `sink` at once, from the callback that received it; returns at the end of the body.

        While `ready` says no, the engine is not read from. Raises EngineLostError, and what `sink` raises.
        """

        def take(piece: bytes) -> None:
            sink(piece)
            if not ready():
                self._wake()

        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            sink(piece)
        self._sink = take
        while not self.done:
            if ready():
                await self._more()
            elif self._connection is not None:
                self._connection.pause()
                await asyncio.sleep(LOOK_AGAIN_S)
                if ready() and self._connection is not None:
                    self._connection.resume()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """No more is wanted; a connection in the middle of an answer is of no further use."""
        if self._connection is not None:
            self._connection.discard()
            self._connection = None

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # --- from the connection -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """More bytes. Returns whether the connection is free now."""
        self.begun = True
        if self._body is None:
            data = self._headed(data)
            if self._body is None:
                return False
        if data:
            content = self._body.feed(data)
            if content:
                if self._sink is not None:
                    self._sink(content)
                else:
                    self._pieces.append(content)
                    self._wake()
        if not self._body.done:
            return False
        self._connection = None
        self._wake()
        return True

    def _headed(self, data: bytes) -> bytes:
        """What follows the head, once that is whole."""
        self._head_bytes += data
        while (end := self._head_bytes.find(HEAD_END)) >= 0:
            head = parse_head(self._head_bytes[:end])
            data = self._head_bytes[end + len(HEAD_END) :]
            self._head_bytes = data
            if head.status >= 200:
                self.head, self._body = head, Body(head.length)
                self._wake()
                return data
        if len(self._head_bytes) > MAX_HEAD_BYTES:
            raise ValueError("the head is too long")
        return b""

    def fail(self, error: Exception) -> None:
        """What arrived is of no use."""
        self._connection = None
        self._error = error
        self._wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; with no error, the engine closed it."""
        self._connection = None
        if error is not None:
            self._error = EngineLostError(str(error) or type(error).__name__)
        elif self._body is not None and self._body.ends_with_connection:
            self._body.done = True
        else:
            self._error = EngineLostError("it closed the connection early")
        self._wake()


class Connection(asyncio.Protocol):
    """A TCP connection: one request at a time, any number after each other."""

    def __init__(self, release: Callable[["Connection"], None]) -> None:
        self._release = release
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self.pooled = False  # has waited for work
        self.idle_since_s = 0.0
        self.paused = False

    @property
    def usable(self) -> bool:
        """Whether a request may be sent over it."""
        return self._transport is not None and self._reply is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Reply:
        """Writes a request; its answer."""
        assert self._transport is not None
        reply = self._reply = Reply(self)
        self._transport.writelines((head, body))
        return reply

    def discard(self) -> None:
        """Closes at once: the engine notices and ends what it does for us."""
        self._reply = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and self.paused:
            self.paused = False
            self._transport.resume_reading()

    # --- asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by behaviour only

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        reply = self._reply
        if reply is None:
            self.discard()
            return
        try:
            free = reply.feed(data)
        except ValueError as error:
            self._fail(reply, EngineLostError(f"no valid answer: {error}"))
        except Exception as error:  # noqa: BLE001 - of the sink: it belongs to the task that pumps
            self._fail(reply, error)
        else:
            if free:
                self._reply = None
                self.resume()
                if reply.head is not None and reply.head.keep:
                    self._release(self)
                else:
                    self.discard()

    def _fail(self, reply: Reply, error: Exception) -> None:
        reply.fail(error)
        self.discard()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._transport = None
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.lost(exc)
