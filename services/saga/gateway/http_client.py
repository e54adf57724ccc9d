"""The client's side of a streamed answer. Headers go out with the first byte, so that they can tell of the grant."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import HttpVersion11, web

MAX_UNSENT_BYTES: Final = 256 * 1024
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class ClientGoneError(Exception):
    """The client closed its connection, or does not take what it asked for."""


class ClientStream:
    """One stream of events to one client."""

    __slots__ = ("_behind_since_s", "_chunked", "_request", "_response", "_stalled_s", "_transport")

    def __init__(self, request: web.Request, stalled_s: float) -> None:
        """`stalled_s`: how long it may take nothing at all."""
        self._request = request
        self._stalled_s = stalled_s
        self._behind_since_s = 0.0  # monotonic; 0: it keeps up
        self._response: web.StreamResponse | None = None
        self._chunked = request.version >= HttpVersion11
        self._transport = request.transport

    @property
    def begun(self) -> bool:
        """Whether the client has got a status: from then on errors are events."""
        return self._response is not None

    async def write(self, data: bytes, headers: Callable[[], Mapping[str, str]] | None = None) -> None:
        """Sends, with `headers` if it is the first. Waits while the client is slow. Raises ClientGoneError."""
        try:
            async with asyncio.timeout(self._stalled_s):
                if self._response is None:
                    self._response = web.StreamResponse(headers=_HEADERS | dict(headers() if headers else {}))
                    await self._response.prepare(self._request)
                await self._response.write(data)
        except ConnectionError as error:
            raise ClientGoneError from error
        except TimeoutError as error:
            raise self._let_go() from error

    def write_now(self, data: bytes) -> None:
        """The same from a callback, once the stream has begun: nothing waits, so ask `ready` before too much of it."""
        transport = self._transport
        if transport is not None and not transport.is_closing():  # else the handler is about to be cancelled
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def ready(self) -> bool:
        """Whether the client keeps up. Raises ClientGoneError when it has not for too long."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self._behind_since_s = 0.0
            return True
        now_s = time.monotonic()
        self._behind_since_s = self._behind_since_s or now_s
        if now_s - self._behind_since_s > self._stalled_s:
            raise self._let_go()
        return False

    def _let_go(self) -> ClientGoneError:
        """It holds memory here and a slot at an engine: no waiting for it to read what is buffered, either."""
        if self._transport is not None:
            self._transport.abort()
        return ClientGoneError()

    async def end(self) -> web.StreamResponse:
        """No more will come. Something must have been written. Raises ClientGoneError."""
        assert self._response is not None
        try:
            async with asyncio.timeout(self._stalled_s):
                await self._response.write_eof()
        except ConnectionError as error:
            raise ClientGoneError from error
        except TimeoutError as error:
            raise self._let_go() from error
        return self._response
