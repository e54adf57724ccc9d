"""/v1/messages/count_tokens: asked of any engine of the model, past admission, since it only tokenizes."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from saga.contract.ids import PoolId
from saga.gateway.api_errors import ApiError, from_engine, guarded, no_workers, unknown_model
from saga.gateway.dialects.dialect import RawBody, raw_fields
from saga.gateway.engine_body import CONTROL_FIELDS
from saga.gateway.http_body import BodyBudget, HeldBody, read_body
from saga.gateway.http_connection import EngineLostError
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import Departure, EngineClient
from saga.gateway.tenants import Tenants

PATH: Final = "/v1/messages/count_tokens"
WITHIN_S: Final = 10.0  # of one engine
TRIES: Final = 2


class _Counted(msgspec.Struct):
    model: str


_counted = msgspec.json.Decoder(_Counted)


class TokenCounts:
    """The handler."""

    def __init__(
        self, desk: Desk, engines: EngineClient, tenants: Tenants, body_limit_bytes: int, budget: BodyBudget
    ) -> None:
        self._desk = desk
        self._engines = engines
        self._tenants = tenants
        self._body_limit_bytes = body_limit_bytes
        self._budget = budget

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """POST: the engine's answer. Raises ApiError."""
        self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        held = HeldBody(self._budget)
        try:
            return await self._counted_by_an_engine(await read_body(request, self._body_limit_bytes, held.grew))
        finally:
            held.left()

    async def _counted_by_an_engine(self, body: bytes) -> web.StreamResponse:
        raw = guarded(lambda: raw_fields(body))
        model = guarded(lambda: _counted.decode(body)).model
        pools = self._desk.pools()
        if not pools:
            raise no_workers()
        if model not in pools:
            raise unknown_model(model, pools)
        plain: RawBody = {name: value for name, value in raw.items() if name not in CONTROL_FIELDS}
        for url in self._desk.fleet.engine_urls(PoolId(model), self._desk.now_s())[:TRIES]:
            try:
                status, answer = await self._ask(url, msgspec.json.encode(plain))
            except (EngineLostError, TimeoutError):
                continue
            if status == 200:
                return web.Response(body=answer, content_type="application/json")
            if status < 500:
                raise from_engine(status, answer)
        raise ApiError(503, "No engine answers; try again.", code="no_workers", retry_after_s=1.0)

    async def _ask(self, url: str, body: bytes) -> tuple[int, bytes]:
        async with asyncio.timeout(WITHIN_S):
            reply = await self._engines.post(url, PATH, body, Departure(lambda: True))
            try:
                return reply.status, await reply.read()
            finally:
                reply.close()
