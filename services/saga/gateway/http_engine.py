"""The HTTP client to engines: pooled connections, a last look at the lease before the first byte goes out.

Raises `EngineLostError` for everything that means "this engine will not answer"; the caller asks for another one.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

import aiohttp
import msgspec
from yarl import URL

# SGLang's uvicorn closes idle connections after 5 s: let go of ours first, so that none is reused while it closes.
IDLE_S: Final = 4.0
READ_BYTES: Final = 256 * 1024
ABORT_TIMEOUT_S: Final = 2.0
_JSON: Final = {"Content-Type": "application/json"}


class EngineLostError(Exception):
    """Refused, reset, ended early or aborted: this engine does not answer this request."""


class LeaseLostError(Exception):
    """The lease ran out before the request could be written; nothing was sent."""


class Departure:
    """When a request left for its engine, and the question asked just before."""

    __slots__ = ("left_s", "may_leave", "reused")

    def __init__(self, may_leave: Callable[[], bool]) -> None:
        self.may_leave = may_leave
        self.left_s = 0.0  # monotonic, of the first byte of the first try; 0: not yet
        self.reused = True  # the connection is one that served before


class EngineClient:
    """One connection pool for all engines."""

    def __init__(self, connect_s: float) -> None:
        """Needs a running event loop. `connect_s`: for a new connection."""
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_on_connected)
        trace.on_request_headers_sent.append(_on_leaving)
        trace.on_request_chunk_sent.append(_on_left)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            trace_configs=[trace],
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            read_bufsize=READ_BYTES,
        )
        self._urls: dict[str, URL] = {}

    async def post(self, engine_url: str, path: str, body: bytes, departure: Departure) -> aiohttp.ClientResponse:
        """The engine's answer, its body unread. Raises EngineLostError, LeaseLostError."""
        url = self._url(engine_url, path)
        while True:
            departure.reused = True
            try:
                return await self._session.post(url, data=body, headers=_JSON, trace_request_ctx=departure)
            except (aiohttp.ClientError, OSError) as error:
                # An idle connection that the engine closed just now says nothing about the engine: try the next.
                stale = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | BrokenPipeError)
                if not (departure.reused and stale):
                    raise EngineLostError(str(error) or type(error).__name__) from error

    async def abort(self, engine_url: str, rid: str) -> None:
        """Tells the engine to drop a request; the worker agent does it again when the lease ends."""
        body = msgspec.json.encode({"rid": rid})
        with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
            async with asyncio.timeout(ABORT_TIMEOUT_S):
                url = self._url(engine_url, "/abort_request")
                async with self._session.post(url, data=body, headers=_JSON) as response:
                    await response.read()

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    def _url(self, engine_url: str, path: str) -> URL:
        key = engine_url + path
        url = self._urls.get(key)
        if url is None:
            if len(self._urls) > 10_000:
                self._urls.clear()
            url = self._urls[key] = URL(engine_url.rstrip("/") + path)
        return url


async def _on_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    departure: Departure | None = context.trace_request_ctx
    if departure is not None:
        departure.reused = False


async def _on_leaving(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    """Connected, nothing written yet: the last moment to stay."""
    departure: Departure | None = context.trace_request_ctx
    if departure is not None and not departure.may_leave():
        raise LeaseLostError


async def _on_left(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    departure: Departure | None = context.trace_request_ctx
    if departure is not None and departure.left_s == 0.0:
        departure.left_s = time.monotonic()
