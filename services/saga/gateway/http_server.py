"""The gateway's HTTP: routes, reading and bounding bodies, errors in the API's shape, probes, drain."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from saga.gateway import http_metrics as metrics
from saga.gateway.api_errors import ApiError, headers_too_large
from saga.gateway.config import GatewaySettings
from saga.gateway.dialects.table import DIALECTS, of_path
from saga.gateway.fleet import Pool
from saga.gateway.http_client import ClientGoneError
from saga.gateway.http_completions import Completions
from saga.gateway.http_count import PATH as COUNT_PATH
from saga.gateway.http_count import TokenCounts
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_protocol import GatewayRunner
from saga.gateway.http_receipts import PATH as STEPS_PATH
from saga.gateway.http_traces import Traces
from saga.gateway.http_workflows import PATH as WORKFLOWS_PATH
from saga.gateway.http_workflows import Workflows
from saga.gateway.prompt_tokens import Tokenizer
from saga.gateway.tenants import Tenants
from saga.runtime.log import get_logger
from saga.runtime.metrics import CONTENT_TYPE, render

CLOSE_WITHIN_S: Final = 2.0
MAX_HEADER_BYTES: Final = 32 * 1024  # of all headers of a request; aiohttp bounds each one
log = get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """One listening socket and all requests behind it."""

    def __init__(
        self,
        settings: GatewaySettings,
        desk: Desk,
        engines: EngineClient,
        tenants: Tenants,
        tokenizers: Mapping[str, Tokenizer] | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`tokenizers`: by model, `*` for all others; a model without one is taken to have a token a byte."""
        self._settings = settings
        self._desk = desk
        self._tenants = tenants
        self._completions = Completions(settings, desk, engines, tenants, tokenizers or {}, traces)
        self._counts = TokenCounts(desk, engines, tenants, settings.body_limit_bytes, self._completions.budget)
        self._workflows = Workflows(desk, tenants)
        self._since = int(time.time())
        self._runner = GatewayRunner(
            self._app(), shutdown_timeout=CLOSE_WITHIN_S, access_log=None, auto_decompress=False
        )

    @property
    def in_flight(self) -> int:
        """Requests being served."""
        return self._completions.in_flight

    @property
    def waiting_bytes(self) -> int:
        """Of bodies that wait for an engine."""
        return self._completions.budget.held_bytes

    def protocol(self) -> asyncio.Protocol:
        """What serves one connection, for who brings a transport of its own. Listen first."""
        assert self._runner.server is not None
        return self._runner.server()

    async def listen(self, tls: ssl.SSLContext | None = None) -> int:
        """Starts to serve, over TLS where it is given; returns the port. OSError if it is taken."""
        await self._completions.open()
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        site = web.TCPSite(self._runner, host, port, backlog=1024, ssl_context=tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def drain(self, within_s: float) -> None:
        """Says goodbye to probes and new requests, and waits for those in flight; what is left then is ended."""
        await self._completions.drain(within_s)

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()
        self._completions.close()

    # --- routes ------------------------------------------------------------------------------------------------

    def _app(self) -> web.Application:
        app = web.Application()
        for dialect in DIALECTS.values():
            app.router.add_post(dialect.path, self._answering(partial(self._completions.serve, dialect)))
        app.router.add_post(COUNT_PATH, self._answering(self._counts.serve))
        app.router.add_get("/v1/models", self._answering(self._models))
        app.router.add_post(WORKFLOWS_PATH, self._answering(self._workflows.declare))
        app.router.add_post(WORKFLOWS_PATH + "/{id:.+}/end", self._answering(self._workflows.end))
        app.router.add_get(WORKFLOWS_PATH + "/{id:.+}", self._answering(self._workflows.show))
        app.router.add_get(STEPS_PATH + "/{id}", self._answering(self._completions.receipts.show))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._answering(_unknown_path))
        return app

    def _answering(self, handle: Handler) -> Handler:
        """Every error in the API's shape; none is a traceback, none leaves a client waiting."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                _check_headers(request)
                return await handle(request)
            except ApiError as error:
                return _error(request, error)
            except ClientGoneError:
                raise ConnectionResetError from None  # aiohttp lets the connection go
            except Exception:
                log.exception("request.broke", path=request.path)
                broke = ApiError(500, "Internal error; the operator's log has the details.", code="internal_error")
                return _error(request, broke)

        return answer

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        missing = await self._desk.missing()
        if self._completions.draining:
            missing.append("time: this gateway is stopping")
        if missing:
            return _json({"status": "not ready", "missing": missing}, status=503)
        workers = sum(pool.workers for pool in self._desk.pools().values())
        return _json({"status": "ready", "workers": workers})  # for whoever starts a mesh, and may have no key

    async def _metrics(self, _request: web.Request) -> web.Response:
        metrics.WAITING.set(self._desk.state.waiting)
        metrics.RUNNING.set(self._desk.state.running)
        metrics.BODY_BYTES.set(self.waiting_bytes)
        metrics.CHAIN_BYTES.set(self._completions.chain_bytes)
        return web.Response(body=render(), headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, request: web.Request) -> web.Response:
        self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        return _json({"object": "list", "data": [self._model(pool) for pool in self._desk.pools().values()]})

    def _model(self, pool: Pool) -> dict[str, object]:
        return {
            "id": pool.pool,
            "object": "model",
            "created": self._since,
            "owned_by": "saga",
            "max_model_len": pool.context_tokens,
            "saga": {
                "speed": pool.speed,
                "shrink": pool.shrink,
                "context_tokens": pool.context_tokens,
                "page_tokens": pool.page_tokens,
                "kv_tokens": pool.kv_tokens,
                "workers": pool.workers,
            },
        }


def _check_headers(request: web.Request) -> None:
    size = sum([len(name) + len(value) for name, value in request.raw_headers])
    if size > MAX_HEADER_BYTES:
        raise headers_too_large(size, MAX_HEADER_BYTES)


def _error(request: web.Request, error: ApiError) -> web.Response:
    body = of_path(request.path).error(error)
    return web.Response(status=error.status, body=body, headers=error.headers(), content_type="application/json")


async def _unknown_path(request: web.Request) -> web.Response:
    known = {dialect.path: "POST" for dialect in DIALECTS.values()} | {COUNT_PATH: "POST", "/v1/models": "GET"}
    known |= {WORKFLOWS_PATH: "POST", WORKFLOWS_PATH + "/ID": "GET", WORKFLOWS_PATH + "/ID/end": "POST"}
    known |= {STEPS_PATH + "/ID": "GET"}
    method = known.get(request.path)
    if method is not None:
        message = f"{request.path} takes {method}, not {request.method}."
        raise ApiError(405, message, code="method_not_allowed")
    there = ", ".join(f"{method} {path}" for path, method in known.items())
    raise ApiError(404, f"No {request.method} {request.path[:100]} here. There are: {there}.", code="unknown_url")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
