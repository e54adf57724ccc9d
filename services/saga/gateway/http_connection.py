"""One connection to an engine, and the answer that comes over it. Used by `http_engine.py`.

A protocol of our own on httptools instead of aiohttp's client because this is the gateway's hottest path: a piece of a
stream goes from socket to socket in one callback, with no task woken in between (docs/adr/0006).
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from saga.gateway.framing import AnswerParser, MalformedError

LOOK_AGAIN_S: Final = 0.01  # at a client that was too slow


class EngineLostError(Exception):
    """Refused, reset, ended early or aborted: this engine does not answer this request."""


class UnansweredError(EngineLostError):
    """The connection ended before any byte of the answer: on one that had been idle, perhaps before the request."""


class Reply:
    """The answer to one request, as it arrives. Used by one task."""

    __slots__ = ("_answer", "_arrived", "_begun", "_connection", "_error", "_sink")

    def __init__(self, connection: "Connection") -> None:
        self._connection: Connection | None = connection
        self._answer = AnswerParser()
        self._arrived: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._error: Exception | None = None
        self._begun = False  # any byte has arrived

    @property
    def status(self) -> int:
        """HTTP status. Await `headed` first."""
        return self._answer.status

    @property
    def done(self) -> bool:
        """The whole answer has arrived."""
        return self._answer.done

    async def headed(self) -> None:
        """Returns when the head is here. Raises EngineLostError."""
        while not self._answer.status:
            await self._more()

    async def some(self) -> bytes:
        """What has arrived of the body since, at least one byte; nothing at its end. Raises EngineLostError."""
        while not self._answer.pieces:
            if self._answer.done:
                return b""
            await self._more()
        return self._taken()

    async def read(self) -> bytes:
        """The whole body. Raises EngineLostError."""
        while not self._answer.done:
            await self._more()
        return self._taken()

    async def pump(self, sink: Callable[[bytes], None], ready: Callable[[], bool]) -> None:
        """Hands what arrives to `sink` at once, from the callback that received it; returns at the end of the body.

        While `ready` says no, the engine is not read from. Raises EngineLostError, and what `sink` raises.
        """

        def take(content: bytes) -> None:
            sink(content)
            if not ready():
                self._wake()

        if self._answer.pieces:
            sink(self._taken())
        self._sink = take
        while not self._answer.done and self._error is None:
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

    def _taken(self) -> bytes:
        pieces = self._answer.pieces
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return content

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived  # an error is raised at the next call: what came before it counts

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # --- from the connection -----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """More bytes. Raises MalformedError, and what the sink raises."""
        self._begun = True
        answer = self._answer
        try:
            answer.feed(data)
        finally:
            if self._sink is None:
                self._wake()
            elif answer.pieces:
                self._sink(self._taken())

    def finish(self) -> bool:
        """The answer is done. Returns whether its connection may serve again."""
        self._connection = None
        self._wake()
        return self._answer.keep

    def fail(self, error: Exception) -> None:
        """What arrived is of no use."""
        self._connection = None
        self._error = error
        self._wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is gone; with no error, the engine closed it."""
        if error is None and self._answer.close():
            self.finish()
            return
        lost = EngineLostError if self._begun else UnansweredError
        self.fail(lost((error and str(error)) or "it closed the connection early"))


class Connection(asyncio.Protocol):
    """A TCP connection: one request at a time, any number after each other."""

    def __init__(self, release: Callable[["Connection"], None]) -> None:
        self._release = release
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self.idle_since_s = 0.0
        self.paused = False

    @property
    def usable(self) -> bool:
        """Whether a request may be sent over it."""
        return self._transport is not None and self._reply is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Reply:
        """Writes a request; its answer. Raises UnansweredError if the connection has ended: even one that was made just
        now may be gone by the time its maker runs."""
        if self._transport is None or self._transport.is_closing():
            raise UnansweredError("it closed the connection at once")
        assert self._reply is None, "one request at a time"
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
            reply.feed(data)
        except MalformedError as error:
            self._fail(reply, EngineLostError(str(error)))
        except Exception as error:  # noqa: BLE001 - of the sink: it belongs to the task that pumps
            self._fail(reply, error)
        else:
            if reply.done:
                self._free(reply)

    def _free(self, reply: Reply) -> None:
        self._reply = None
        self.resume()
        if reply.finish():
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
