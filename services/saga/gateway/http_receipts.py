"""The receipt of a step whose client asks for one: gathered along its way, told at its end, kept for a while.

What is known before the body goes into headers; the rest is a header of a whole answer (`X-Saga-Receipt`) and a comment
of a stream, which every client passes over. `GET /v1/saga/steps/ID` tells it again, for clients that drop both.
"""

from collections import OrderedDict
from typing import Final

import msgspec
from aiohttp import web

from saga.contract.ids import PoolId, SessionId, StepId, TenantId
from saga.contract.messages import Grant, KvAsk, KvTold
from saga.contract.misses import Loss, MissCause, Sent, Used, added, explained, shortfall
from saga.gateway import receipts, sse
from saga.gateway.api_errors import ApiError
from saga.gateway.events import Completed
from saga.gateway.http_desk import Desk
from saga.gateway.receipts import Route, Wait
from saga.gateway.tenants import Tenants
from saga.gateway.transcript import Usage
from saga.runtime.errors import BusUnavailable, MessageError

PATH: Final = "/v1/saga/steps"
ANSWER_WITHIN_S: Final = 0.25
MAX_KEPT: Final = 4_096


class Receipts:
    """The newest of this gateway."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._kept: OrderedDict[tuple[TenantId, str], bytes] = OrderedDict()

    def keep(self, tenant: TenantId, step_id: StepId, data: bytes) -> None:
        """One more."""
        self._kept[tenant, step_id] = data
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET: 200. Raises ApiError 401, 404."""
        tenant = self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        step_id = request.match_info["id"]
        data = self._kept.get((tenant.id, step_id))
        if data is None:
            told = f"No receipt of step '{step_id[:64]}' here. Ask for one with {receipts.EXPLAIN}: 1; a gateway keeps "
            raise ApiError(404, f"{told}the last {MAX_KEPT} of its own.", param="id", code="step_not_found")
        return web.Response(body=data, content_type="application/json")


class Explainer:
    """Of one step."""

    __slots__ = ("_desk", "_first", "_kept", "_last", "_pool", "_read_s", "_sent", "_session", "_tenant")

    def __init__(
        self,
        desk: Desk,
        kept: Receipts,
        sent: Sent,
        *,
        tenant: TenantId,
        pool: PoolId,
        session: SessionId,
        read_s: float,
    ) -> None:
        self._desk = desk
        self._kept = kept
        self._sent = sent
        self._tenant = tenant
        self._pool = pool
        self._session = session
        self._read_s = read_s
        self._first: Grant | None = None
        self._last: Grant | None = None

    def granted(self, grant: Grant) -> None:
        """An attempt begins."""
        self._first = self._first or grant
        self._last = grant

    def headers(self, control_s: float) -> dict[str, str]:
        """What is known before the body. `control_s`: as `Completed` has it."""
        if self._last is None:
            return {}
        return {receipts.ROUTE: self._route(self._last).text, receipts.WAIT: self._wait(control_s).text}

    async def told(self, done: Completed, usage: Usage | None) -> bytes:
        """The receipt as JSON, which is kept too. `usage`: as the engine said it."""
        assert self._first is not None
        assert self._last is not None
        used = self._used(done, usage)
        missed, loss = shortfall(self._sent, self._first, self._last, used)
        if loss is not None:
            missed = added(missed, await self._explained(loss, done.step_id), loss.tokens)
        made = receipts.receipt(
            step=done.step_id,
            route=self._route(self._last),
            wait=self._wait(done.control_s),
            used=used,
            output_tokens=done.output_tokens,
            sent=self._sent,
            missed=missed,
        )
        data = msgspec.json.encode(made)
        self._kept.keep(self._tenant, done.step_id, data)
        return data

    async def _explained(self, loss: Loss, step_id: StepId) -> MissCause:
        if not loss.worker_id:
            return "unknown"
        ask = KvAsk(session=self._session, step_id=step_id)
        since_s = self._desk.now_s() - self._read_s
        try:
            answer = await self._desk.ask(self._desk.subjects.worker_ask(loss.worker_id), ask, ANSWER_WITHIN_S)
        except (BusUnavailable, MessageError):
            return "unknown"
        return explained(loss, answer if isinstance(answer, KvTold) else None, self._sent, since_s)

    def _used(self, done: Completed, usage: Usage | None) -> Used:
        """An engine that has nothing to say of cached tokens has none, or does not count them."""
        assert self._last is not None
        if usage is None:
            return Used(None, None)
        counted = usage.counts_cached or self._last.cached_tokens == 0
        return Used(done.prompt_tokens, usage.cached_tokens if counted else None)

    def _route(self, grant: Grant) -> Route:
        first = self._first or grant
        ran_at = first.worker_id if first.worker_id != grant.worker_id else first.ran_at or self._sent.ran_at
        return Route(
            worker=grant.worker_id,
            pool=self._pool,
            reason=grant.reason,
            moved_from=ran_at if ran_at != grant.worker_id else "",
            attempts=grant.attempt + 1,
        )

    def _wait(self, control_s: float) -> Wait:
        assert self._first is not None
        return Wait(round(control_s, 6), self._first.waited)


def comment(receipt: bytes) -> bytes:
    """The receipt in a stream."""
    return sse.comment("saga " + receipt.decode())
