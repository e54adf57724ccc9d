"""The client's side of a streamed answer. Headers go out with the first byte, so that they can tell of the grant."""

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class ClientGoneError(Exception):
    """The client closed its connection."""


class ClientStream:
    """One stream of events to one client."""

    __slots__ = ("_request", "_response")

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        """Whether the client has got a status: from then on errors are events."""
        return self._response is not None

    async def write(self, data: bytes, headers: Callable[[], Mapping[str, str]] | None = None) -> None:
        """Sends, with `headers` if it is the first. Waits while the client is slow. Raises ClientGoneError."""
        try:
            if self._response is None:
                self._response = web.StreamResponse(headers=_HEADERS | dict(headers() if headers else {}))
                await self._response.prepare(self._request)
            await self._response.write(data)
        except ConnectionError as error:
            raise ClientGoneError from error

    async def end(self) -> web.StreamResponse:
        """No more will come. Something must have been written. Raises ClientGoneError."""
        assert self._response is not None
        try:
            await self._response.write_eof()
        except ConnectionError as error:
            raise ClientGoneError from error
        return self._response
