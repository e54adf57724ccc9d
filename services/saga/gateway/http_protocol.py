"""aiohttp's server protocol, but that what it refuses by itself is refused as the API refuses, too.

aiohttp answers broken HTTP in plain text and logs a traceback for each, so that anybody could fill the operator's log.
Here it is a JSON error that names the limit, one short log line, and the connection ends. Used by `http_server.py`.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from saga.gateway.api_errors import ApiError
from saga.runtime.log import get_logger

MAX_LINE_BYTES: Final = 8190  # of the request line, and of a header: aiohttp's
MAX_HEADERS: Final = 128  # the same
_TOLD_CHARS: Final = 100
log = get_logger()
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class GatewayProtocol(RequestHandler):
    """One connection of a client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What no handler has seen, or what broke outside of one. Raises ConnectionError when an answer has begun."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone: nobody to tell
        if status >= 500:
            log.error("request.broke", path=request.path, exc_info=exc)
        else:
            log.info("request.refused", why=(message or "")[:_TOLD_CHARS])
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        response = _response(_told(status, exc, message or ""))
        response.force_close()
        return response


async def _shaped(handle: Handler, request: web.BaseRequest) -> web.StreamResponse:
    """What aiohttp refuses before any handler of ours is asked."""
    try:
        return await handle(request)
    except web.HTTPException as error:
        told = ApiError(error.status, f"{error.text or error.reason}.", code=error.reason.lower().replace(" ", "_"))
        return _response(told)


class GatewayServer(Server):
    """Makes such protocols, with the settings of a server that aiohttp made."""

    def __init__(self, made: Server, **settings: Any) -> None:  # noqa: ANN401 - as aiohttp's
        super().__init__(
            partial(_shaped, made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **settings,
        )
        self._settings = settings

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return GatewayProtocol(self, loop=self._loop, **self._settings)


class GatewayRunner(web.AppRunner):
    """As aiohttp's, with our protocol."""

    __slots__ = ("_settings",)

    def __init__(self, app: web.Application, *, shutdown_timeout: float, **settings: Any) -> None:  # noqa: ANN401
        """`settings`: of the protocol."""
        super().__init__(app, handler_cancellation=True, shutdown_timeout=shutdown_timeout)
        self._settings = settings

    async def _make_server(self) -> Server:
        return GatewayServer(await super()._make_server(), **self._settings)


def _told(status: int, exc: BaseException | None, message: str) -> ApiError:
    if status >= 500:
        return ApiError(500, "Internal error; the operator's log has the details.", code="internal_error")
    if isinstance(exc, LineTooLong):
        told = f"A line of the request's head is too long: the limit is {MAX_LINE_BYTES} bytes. Send less."
        return ApiError(431, told, code="headers_too_large")
    if "many headers" in message.lower():
        return ApiError(431, f"Too many headers: the limit is {MAX_HEADERS}. Send fewer.", code="headers_too_large")
    return ApiError(400, f"This is no valid HTTP request: {_first_line(message)}.", code="invalid_http")


def _response(error: ApiError) -> web.Response:
    """In both shapes at once: which API it is meant for is not known."""
    body = msgspec.json.encode({"type": "error", "error": error.fields()})
    return web.Response(status=error.status, body=body, content_type="application/json")


def _first_line(message: str) -> str:
    """aiohttp's word, without the bytes that it points at."""
    line = message.partition("\n")[0].strip().rstrip(".:")
    return line[:_TOLD_CHARS] if line.isascii() and line.isprintable() else "it cannot be parsed"
