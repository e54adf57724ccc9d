"""One request from its step's submission to its last byte: wait for a grant, run on the engine, relay.

The hot path is `forward`, called for each piece of a stream as it arrives. What passes is decided in `relay.py`, how an
answer goes on after its engine died in `resume.py`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from saga.contract.ids import NO_WORKER, rid
from saga.contract.messages import Grant
from saga.contract.unreadable import UNREADABLE
from saga.gateway import http_metrics as metrics
from saga.gateway import resume, sse
from saga.gateway.api_errors import STEP, ApiError, from_engine, not_resumable, rejected, stopping
from saga.gateway.dialects.dialect import Asked, Dialect
from saga.gateway.engine_body import engine_body
from saga.gateway.events import Completed, EngineDied, GaveUp, Progressed, Reject, Run, Sending
from saga.gateway.http_client import ClientStream
from saga.gateway.http_connection import EngineLostError, Reply
from saga.gateway.http_desk import Desk, Ticket
from saga.gateway.http_engine import Departure, EngineClient, LeaseLostError
from saga.gateway.http_receipts import Explainer, comment
from saga.gateway.receipts import RECEIPT
from saga.gateway.relay import Relay
from saga.gateway.transcript import Transcript
from saga.runtime.log import get_logger

PROGRESS_EVERY_S: Final = 2.0
_WAITING: Final = sse.comment("waiting")
_ELSEWHERE: Final = frozenset({502, 503, 504})  # an engine's answers that another engine may not give

log = get_logger()


class Exchange:
    """The story of one request."""

    def __init__(
        self,
        request: web.Request,
        desk: Desk,
        engines: EngineClient,
        dialect: Dialect,
        asked: Asked,
        cache_salt: str,
        *,
        told: Mapping[str, str],
        explainer: Explainer | None,
        opening_events: int,
        read_s: float,
        keepalive_s: float,
        resume_bytes: int,
        stalled_s: float,
        body_left: Callable[[], None],
        context: bytes,
        words: Callable[[str], bytes] | None,
        ids: Mapping[str, object],
    ) -> None:
        self._desk = desk
        self._engines = engines
        self._dialect = dialect
        self._asked = asked
        self._cache_salt = cache_salt
        self._told = told  # of the identity, if the client asks
        self._explainer = explainer  # if the client asks
        self._end = b""  # of the stream, held back for the receipt to go before it
        self._read_s = read_s
        self._keepalive_s = keepalive_s
        self._body_left = body_left
        self._context = context  # header lines: the trace that the request is part of
        self._client = ClientStream(request, stalled_s)
        self._sent = Transcript(resume_bytes, dialect, opening_events, words)
        self._sent_tokens = 0  # of text, before the present attempt
        self._base = dialect.always(asked)
        self._ids = ids  # the prompt as token ids, where the gateway renders it
        self._changes: dict[str, object] = self._base | dict(ids)
        self._progress_at_s = 0.0
        self._left_s = 0.0  # present attempt written to its engine
        self._relayed: Relay | None = None  # of the present attempt
        self._at_engine: tuple[str, str] | None = None  # (url, rid) while a request may run there
        self.stopping = False  # set when this gateway must go before the answer is complete
        self.grant: Grant | None = None
        self.attempts = 0
        self.control_s = 0.0
        self.first_token_s = 0.0
        self.chunks = 0  # pieces relayed
        self.done: Completed | None = None

    async def run(self, ticket: Ticket) -> web.StreamResponse:
        """The answer, sent or to be sent. Raises ApiError while nothing has been sent, ClientGoneError."""
        step_id = ticket.step.step_id
        try:
            return await self._until_answered(ticket)
        except ApiError as error:
            self._desk.tell(GaveUp(step_id, self._sent.events, failed=True))
            return await self._failed(error)
        except asyncio.CancelledError:
            self._abandon(ticket)
            task = asyncio.current_task()
            if not self.stopping or task is None:
                raise
            task.uncancel()
            return await self._failed(stopping())
        except BaseException:
            self._abandon(ticket)
            raise
        finally:
            ticket.close()

    def _abandon(self, ticket: Ticket) -> None:
        """Nobody waits for the answer: end it at the engine too."""
        if self._relayed is not None and self._relayed.done:
            if self.done is None:  # its client had the last event, and did not wait for the end of the stream
                self._sent.fold_end()
                self._complete(ticket)
            return
        self._desk.tell(GaveUp(ticket.step.step_id, self._sent.events, failed=self.stopping))
        if self._at_engine is not None:
            url, request_id = self._at_engine
            self._desk.spawn(self._engines.abort(url, request_id), "abort")

    async def _until_answered(self, ticket: Ticket) -> web.StreamResponse:
        while True:
            news = await self._news(ticket)
            if isinstance(news, Reject):
                raise rejected(news.reason, news.detail, news.retry_after_s)
            try:
                return await self._attempt(ticket, news)
            except LeaseLostError:
                continue  # the core has asked again
            except EngineLostError as error:
                log.info(
                    "engine.lost",
                    step=ticket.step.step_id,
                    worker=news.grant.worker_id,
                    attempt=news.attempt,
                    why=str(error),
                )
                answered = await self._engine_lost(ticket)
                if answered is not None:
                    return answered

    async def _news(self, ticket: Ticket) -> Run | Reject:
        """The core's next word; a stream that waits long shows signs of life."""
        if not self._asked.stream:
            return await ticket.next()
        while True:
            try:
                async with asyncio.timeout(self._keepalive_s):
                    return await ticket.next()
            except TimeoutError:
                await self._client.write(_WAITING, lambda: {STEP: ticket.step.step_id})

    # --- one attempt -------------------------------------------------------------------------------------------

    async def _attempt(self, ticket: Ticket, run: Run) -> web.StreamResponse:
        grant, step_id = run.grant, ticket.step.step_id
        self.grant, self.attempts = grant, run.attempt + 1
        if self._explainer is not None:
            self._explainer.granted(grant)
        request_id = rid(step_id, run.attempt)
        body = engine_body(
            self._asked.raw,
            rid_field=self._dialect.rid_field,
            rid=request_id,
            session_tag=grant.session_tag,
            priority=grant.priority,
            cache_salt=self._cache_salt,
            changes=self._changes,
        )

        def may_leave() -> bool:
            self._desk.tell(Sending(step_id, grant))
            return self._desk.holds(step_id, grant)

        departure = Departure(may_leave)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as scope:
                ticket.cut = lambda: scope.reschedule(loop.time())
                self._at_engine = (grant.engine_url, request_id)
                reply = await self._engines.post(grant.engine_url, self._dialect.path, body, departure, self._context)
                try:
                    self._left(departure)
                    return await self._answered(ticket, reply, run)
                finally:
                    reply.close()
        except TimeoutError as error:
            raise EngineLostError("its worker says that it died") from error
        finally:
            ticket.cut = None

    def _left(self, departure: Departure) -> None:
        """The request is at the engine."""
        self._left_s = departure.left_s
        if self.attempts == 1:
            self.control_s = departure.left_s - self._read_s
            if self.grant is not None and self.grant.waited == "none":
                metrics.CONTROL.observe(self.control_s)
        self._body_left()

    async def _answered(self, ticket: Ticket, reply: Reply, run: Run) -> web.StreamResponse:
        if reply.status != 200:
            text = await reply.read()
            self._at_engine = None
            if reply.status in _ELSEWHERE:
                raise EngineLostError(f"it answered {reply.status}")
            raise from_engine(reply.status, text)
        if self._asked.stream:
            return await self._relay(ticket, reply, run)
        return await self._whole(ticket, await reply.read())

    async def _whole(self, ticket: Ticket, data: bytes) -> web.Response:
        try:
            lost = self._dialect.read_whole(data, self._sent)
        except UNREADABLE as error:
            raise EngineLostError(f"its answer is no JSON: {error}") from error
        if lost:
            raise EngineLostError(lost)
        self.first_token_s = time.monotonic() - self._left_s
        done = self._complete(ticket)
        headers = {**self._headers(), "Content-Type": "application/json"}
        if self._explainer is not None:
            headers[RECEIPT] = (await self._explainer.told(done, self._sent.usage)).decode()
        return web.Response(body=data, headers=headers)

    async def _relay(self, ticket: Ticket, reply: Reply, run: Run) -> web.StreamResponse:
        sent, dialect = self._sent, self._dialect
        splice = dialect.splice(sent, rid(ticket.step.step_id, run.attempt)) if run.attempt > 0 and sent.id else None
        relay = self._relayed = Relay(dialect, self._asked, sent, splice=splice, sent_tokens=self._sent_tokens)

        def forward(piece: bytes) -> None:
            data = relay.take(piece)
            if data:
                now_s = time.monotonic()
                if now_s >= self._progress_at_s:
                    self._progress(ticket, now_s)
                self.chunks += 1
                if relay.done and self._explainer is not None:
                    self._end = data
                else:
                    self._client.write_now(data)
            if relay.lost:
                raise EngineLostError(relay.lost)

        if self._client.begun and run.attempt == 0:  # too late for headers: the stream began while the step waited
            for name, value in self._headers().items():
                await self._client.write(sse.comment(f"{name}: {value}"))
        while not self._client.begun and (piece := await reply.some()):
            data = relay.take(piece)
            if data:
                self._progress(ticket, time.monotonic())
                if relay.done and self._explainer is not None:
                    self._end = data
                    break
                await self._client.write(data, self._headers)
            if relay.lost:
                raise EngineLostError(relay.lost)
        await reply.pump(forward, self._client.ready)
        if not relay.done:
            raise EngineLostError("its stream ended early")
        sent.fold_end()
        await self._explained(self._complete(ticket))
        return await self._client.end()

    async def _explained(self, done: Completed) -> None:
        """The receipt and what was held back for it, if the client asked for one."""
        if self._explainer is not None:
            told = comment(await self._explainer.told(done, self._sent.usage))
            await self._client.write(told + self._end, self._headers)

    def _progress(self, ticket: Ticket, now_s: float) -> None:
        if self.first_token_s == 0.0:
            self.first_token_s = now_s - self._left_s
        self._progress_at_s = now_s + PROGRESS_EVERY_S
        self._desk.tell(Progressed(ticket.step.step_id, self._sent.events))

    # --- after an attempt --------------------------------------------------------------------------------------

    async def _engine_lost(self, ticket: Ticket) -> web.StreamResponse | None:
        """Go on with another engine, or end here: returns the answer when only its end was missing."""
        asked, sent = self._asked, self._sent
        self._at_engine = None
        sent.fold()
        if asked.stream and resume.complete(self._dialect, asked, sent):
            output_tokens = sent.text_tokens
            await self._client.write(self._dialect.ending(asked, sent, "length", output_tokens), self._headers)
            sent.finish_reason = sent.finish_reason or "length"
            await self._explained(self._complete(ticket))
            return await self._client.end()
        fixed = resume.why_not(self._dialect, asked, sent)
        if fixed:
            raise not_resumable(fixed)
        (metrics.RESUMED if sent.begun else metrics.RETRIED).inc()
        self._sent_tokens = sent.text_tokens
        self._changes = self._base | (resume.changes(self._dialect, asked, sent) or dict(self._ids))
        self._desk.tell(EngineDied(ticket.step.step_id, self._sent_tokens))
        return None

    def _complete(self, ticket: Ticket) -> Completed:
        sent = self._sent
        usage = sent.usage
        if usage is None:
            sent.fold()
        prompt_tokens = usage.prompt_tokens if usage else self._asked.prompt_tokens
        output_tokens = usage.output_tokens if usage else sent.text_tokens
        cached_tokens = usage.cached_tokens if usage else 0
        worker_id = self.grant.worker_id if self.grant is not None else NO_WORKER
        self.done = Completed(
            step_id=ticket.step.step_id,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            finish_reason=sent.finish_reason or "other",
            tools=sent.tools,
            control_s=self.control_s,
            first_token_s=self.first_token_s,
            engine_s=time.monotonic() - self._left_s,
            modelled_s=self._desk.fleet.step_s(worker_id, prompt_tokens, cached_tokens, output_tokens),
        )
        self._at_engine = None
        self._desk.tell(self.done)
        return self.done

    # --- the client --------------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        grant = self.grant
        if grant is None:
            return {}
        return {
            STEP: grant.step_id,
            "X-Saga-Worker": grant.worker_id,
            "X-Saga-Waited": grant.waited,
            "X-Saga-Control-Ms": f"{1000 * self.control_s:.3f}",
            **(self._explainer.headers(self.control_s) if self._explainer else {}),
            **self._told,
        }

    async def _failed(self, error: ApiError) -> web.StreamResponse:
        """The error as the API tells it: an answer, or the last event of a stream that has begun."""
        if not self._client.begun:
            raise error
        await self._client.write(self._dialect.error_event(error))
        return await self._client.end()

    @property
    def outcome(self) -> str:
        """How it ended, if it did not raise."""
        return "completed" if self.done else "failed"

    @property
    def counted(self) -> bool:
        """Whether the engine told how long it found the prompt."""
        return self._sent.usage is not None

    @property
    def opening(self) -> str:
        """What the answer began with, as its client will repeat it: some text, or the id of a call."""
        return self._sent.opening or self._sent.call_id

    @property
    def events(self) -> int:
        """Events relayed."""
        return self._sent.events
