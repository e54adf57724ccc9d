"""A completion request from its headers to its step: read, understand, hash, hand over to an `Exchange`, log."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Final

from aiohttp import web

from saga.contract.ids import NO_WORKER, PoolId, StepId, TenantId, WorkerId
from saga.contract.messages import StepReady, WorkflowEnded
from saga.contract.misses import Sent
from saga.gateway.api_errors import (
    ApiError,
    duplicate,
    kv_not_apart,
    no_workers,
    stopping,
    too_long,
    unknown_model,
)
from saga.gateway.config import PREFIX, GatewaySettings
from saga.gateway.conversations import piece_of
from saga.gateway.dialects.dialect import Asked, Dialect, prints_of, understood
from saga.gateway.fleet import Pool
from saga.gateway.http_body import BodyBudget, HeldBody, read_body
from saga.gateway.http_client import ClientGoneError
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_exchange import Exchange
from saga.gateway.http_live import Live, log_line
from saga.gateway.http_noise import receipt_of, told_noise
from saga.gateway.http_peers import Peers
from saga.gateway.http_prefetch import Prefetcher
from saga.gateway.http_prompts import Prompts, Ready
from saga.gateway.http_receipts import Explainer, Receipts
from saga.gateway.http_traces import Traces, handed_on
from saga.gateway.hygiene import Hygiene
from saga.gateway.identity import IDENTITY, Identities, Identity, told_of
from saga.gateway.prompt_tokens import Tokenizer
from saga.gateway.receipts import EXPLAIN, wanted
from saga.gateway.recognisers import Evidence
from saga.gateway.running_keys import RunningKeys
from saga.gateway.sessions import Prompt, SessionChains
from saga.gateway.tenants import Tenant, Tenants
from saga.gateway.tidying import CleanFor, tidied
from saga.runtime.log import get_logger

THREAD_FROM_BYTES: Final = 64 * 1024  # of a body; below, a thread costs more than it saves
NO_TOOLS_BYTES: Final = 4  # of `null` and `[]`
OPENING_EVENTS: Final = 16  # of an answer that tells conversations apart
END_WITHIN_S: Final = 2.0  # for requests that were told that the gateway stops
log = get_logger()


class Completions:
    """Every API that generates, and all requests in flight."""

    def __init__(
        self,
        settings: GatewaySettings,
        desk: Desk,
        engines: EngineClient,
        tenants: Tenants,
        tokenizers: Mapping[str, Tokenizer],
        traces: Traces | None = None,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._engines = engines
        self._tenants = tenants
        self._traces = traces
        self._chains = SessionChains(settings.chain_bytes)
        send_ids = settings.tokenization == "gateway"
        self._prompts = Prompts(tokenizers, engines, self._chains, send_ids=send_ids)
        desk.on_prefetch = Prefetcher(desk, engines, tenants, self._chains).perform
        self._identities = Identities()
        self._peers = Peers(desk, self._identities.conversations)
        self._hygiene = Hygiene()
        self._clean_for = CleanFor(settings.clean_prefix)
        self._keys = RunningKeys()
        self.receipts = Receipts(tenants)
        self._live: dict[asyncio.Task[object], Live] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.budget = BodyBudget(settings.waiting_body_bytes)

    async def open(self) -> None:
        """Answers other gateways from here on."""
        await self._peers.open()

    @property
    def in_flight(self) -> int:
        """Requests being served."""
        return len(self._live)

    @property
    def chain_bytes(self) -> int:
        """Memory of the sessions' page chains."""
        return self._chains.held_bytes

    async def drain(self, within_s: float) -> None:
        """Takes nothing new and waits for what is in flight; what is left then is ended, and its clients told."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        for task, live in list(self._live.items()):
            if live.exchange is not None:
                live.exchange.stopping = True
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await self._idle.wait()

    def close(self) -> None:
        """Ends threads and timers."""
        self._prompts.close()
        self._peers.close()

    async def serve(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """One request. Raises ApiError while nothing has been sent, ClientGoneError."""
        if self.draining:
            raise stopping()
        task = asyncio.current_task()
        assert task is not None
        live = self._live[task] = Live(dialect, HeldBody(self.budget))
        self._idle.clear()
        try:
            response = await self._serve(request, live)
            live.outcome = live.exchange.outcome if live.exchange is not None else "failed"
        except ApiError as error:
            live.outcome = "refused" if error.status < 500 else "failed"
            live.error = error.code or error.message
            error.step = live.step_id
            raise
        except (asyncio.CancelledError, ClientGoneError):
            live.outcome = "client_gone"
            raise
        else:
            return response
        finally:
            live.body.left()
            if live.key:
                self._keys.release(live.tenant, live.key)
            del self._live[task]
            if not self._live:
                self._idle.set()
            log_line(live)
            if live.trace is not None:
                live.trace.end(live)

    async def _serve(self, request: web.Request, live: Live) -> web.StreamResponse:
        tenant = self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        live.tenant = tenant.id
        key = request.headers.get("Idempotency-Key", "")
        if key:
            if not self._keys.claim(tenant.id, key):
                raise duplicate(key)
            live.key = key
        cache_salt = self._salt_for(live.dialect, tenant)
        body = await read_body(request, self._settings.body_limit_bytes, live.body.grew, self._settings.body_within_s)
        read_s = self._desk.now_s()
        large = len(body) > THREAD_FROM_BYTES
        tidy = tidied if self._clean_for.wants(tenant.id) else None
        reading = partial(understood, live.dialect, body, tidy)
        asked = await self._prompts.aside(reading) if large else reading()
        pool = self._pool_of(asked)
        whose = await self._whose(live.dialect, asked, request, tenant.id)
        live.whose = whose
        last = self._chains.last(whose.session) if whose.lasting else None
        ready = await self._prompts.ready(asked, whose, pool, cache_salt, aside=large)
        asked, prompt = ready.asked, ready.prompt
        if asked.prompt_tokens + (asked.max_tokens or 1) > pool.context_tokens:
            param = live.dialect.prompt_field
            raise too_long(param, asked.prompt_tokens, asked.max_tokens or 0, pool.context_tokens)
        head = self._hygiene.head(live.dialect.api, asked.raw, asked.roles)
        live.noise = self._hygiene.look(tenant.id, head, asked.token_bytes, last.token_bytes if last else b"")
        told_noise(live.noise, tenant.id)
        if whose.lasting and not whose.final and not whose.ends:
            self._chains.keep(whose.session, prompt)
        live.step = self._step(
            live.step_id,
            ready,
            whose=whose,
            tenant=tenant,
            pool=pool,
            read_s=read_s,
            agent_class=live.noise.agent_class,
        )
        if self._traces is not None:
            live.trace = self._traces.begin(live, live.step, request.headers)
        explainer = None
        if wanted(request.headers.get(EXPLAIN)):
            sent = _sent(live, asked, last, prompt, pool, self._chains.ran_at(whose.session))
            explainer = self._explainer(live.step, sent, read_s)
        live.exchange = Exchange(
            request,
            self._desk,
            self._engines,
            live.dialect,
            asked,
            cache_salt,
            opening_events=OPENING_EVENTS if whose.conversation is not None else 0,
            told=(told_of(whose) if request.headers.get(IDENTITY) else {}) | receipt_of(live.noise, request.headers),
            explainer=explainer,
            read_s=read_s,
            keepalive_s=self._settings.keepalive_s,
            resume_bytes=self._settings.resume_bytes,
            body_left=live.body.left,
            context=handed_on(request.headers) if live.trace is None else live.trace.context,
            stalled_s=self._settings.stalled_s,
            words=ready.words,
            ids=ready.ids,
        )
        try:
            return await live.exchange.run(self._desk.submit(live.step, prompt))
        finally:
            self._compare(live, ready, pool)
            if whose.conversation is not None and live.exchange.done is not None:
                whose.conversation.said = piece_of(live.exchange.opening)
            if whose.ends and live.exchange.done is not None:
                ended = WorkflowEnded(tenant=tenant.id, root=whose.root, session=whose.session)
                self._desk.say(self._desk.subjects.workflow_ended(), ended)
            if whose.final or whose.ends:
                self._chains.close(whose.session)
            else:
                grant = live.exchange.grant
                self._chains.ended(whose.session, self._desk.now_s(), grant.worker_id if grant else NO_WORKER)

    async def _whose(self, dialect: Dialect, asked: Asked, request: web.Request, tenant: TenantId) -> Identity:
        """Whose step it is, as far as any gateway knows."""
        evidence = Evidence(request.headers, asked.raw)
        prints = prints_of(dialect, asked) if "assistant" in asked.roles else None
        if prints is not None and self._identities.unsure(evidence, tenant, prints):
            await self._peers.ask(tenant, prints)
        return self._identities.identify(
            evidence,
            tenant=tenant,
            prints=partial(prints_of, dialect, asked) if prints is None else lambda: prints,
            fresh=os.urandom(8).hex(),
            tools=len(asked.raw.get("tools", b"")) > NO_TOOLS_BYTES,
        )

    def _explainer(self, step: StepReady, sent: Sent, read_s: float) -> Explainer:
        return Explainer(
            self._desk,
            self.receipts,
            sent,
            tenant=step.tenant,
            pool=step.pool,
            session=step.session,
            read_s=read_s,
        )

    def _salt_for(self, dialect: Dialect, tenant: Tenant) -> str:
        """Of the pages that the engine will make. Raises ApiError where it would share what must not be shared."""
        if dialect.salted or not tenant.cache_salt:
            return tenant.cache_salt
        if not self._settings.messages_share_kv:
            raise kv_not_apart(dialect.path, f"{PREFIX}MESSAGES_SHARE_KV")
        return ""

    def _pool_of(self, asked: Asked) -> Pool:
        pools = self._desk.pools()
        if not pools:
            raise no_workers()
        pool = pools.get(PoolId(asked.model))
        if pool is None:
            raise unknown_model(asked.model, pools)
        return pool

    def _step(
        self,
        step_id: StepId,
        ready: Ready,
        *,
        whose: Identity,
        tenant: Tenant,
        pool: Pool,
        read_s: float,
        agent_class: str,
    ) -> StepReady:
        asked, prompt = ready.asked, ready.prompt
        hashes, stride = prompt.new_hashes() if ready.pages_known else (b"", 1)
        return StepReady(
            step_id=step_id,
            attempt=0,
            gateway_id=self._desk.gateway_id,
            tenant=tenant.id,
            root=whose.root,
            session=whose.session,
            parent=whose.parent,
            pool=pool.pool,
            agent_class=agent_class or asked.agent_class,
            prompt_tokens=asked.prompt_tokens,
            max_output_tokens=asked.max_tokens or pool.context_tokens - asked.prompt_tokens,
            page_tokens=pool.page_tokens,
            base_pages=prompt.base_pages if ready.pages_known else 0,
            base_tip=prompt.base_tip if ready.pages_known else b"",
            new_hashes=hashes,
            hash_stride=stride,
            pages_known=ready.pages_known,
            deadline_s=whose.deadline_s or self._desk.deadlines.of(whose.root),
            final=whose.final,
            gap_s=self._chains.gap_s(whose.session, read_s),
            waited_s=self._desk.now_s() - read_s,
            at=self._desk.clock.wall_s(),
            node=whose.node,
        )

    def _compare(self, live: Live, ready: Ready, pool: Pool) -> None:
        """The engine's count of the prompt with ours."""
        exchange = live.exchange
        if exchange is None or exchange.done is None or exchange.grant is None or live.whose is None:
            return
        if exchange.attempts > 1 or ready.asked.choices > 1 or not exchange.counted:
            return  # not one request's count
        counted = exchange.done.prompt_tokens
        more = self._prompts.answered(ready, live.whose, pool, exchange.grant.engine_url, counted)
        if more is not None:
            self._desk.spawn(more, "compare tokens")


def _sent(live: Live, asked: Asked, last: Prompt | None, prompt: Prompt, pool: Pool, ran_at: WorkerId) -> Sent:
    """What its receipt compares with."""
    step, whose = live.step, live.whose
    assert step is not None
    assert whose is not None
    anew = "assistant" not in asked.roles if asked.roles else whose.source == "none"
    return Sent(
        prompt_tokens=asked.prompt_tokens,
        page_tokens=pool.page_tokens,
        last_tokens=-1 if last is None else last.chain.pages * pool.page_tokens,
        shared_tokens=prompt.base_pages * pool.page_tokens,
        begins=anew,
        tagged=live.dialect.salted,  # SGLang's request model without a salt has no session either
        gap_s=step.gap_s,
        ran_at=ran_at,
    )
