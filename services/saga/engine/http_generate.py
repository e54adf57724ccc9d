"""The generation endpoints: those of OpenAI's and Anthropic's APIs that SGLang speaks, and /generate.

A client that goes away cancels its handler, which ends the request on the engine.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
from aiohttp import HttpVersion11, web

from saga.engine.http_answers import ChatForm, CompletionForm, Form, generate_answer
from saga.engine.http_ask import Ask, Asks
from saga.engine.http_bodies import (
    ChatBody,
    CompletionBody,
    CountBody,
    GenerateBody,
    MessagesBody,
    ResponsesBody,
    decode,
)
from saga.engine.http_errors import BadRequestError, stream_error
from saga.engine.http_messages import MessagesForm
from saga.engine.http_responses import ResponsesForm
from saga.engine.http_sinks import Collected, Streamed, StreamedGenerate, Wire
from saga.engine.service import EngineService, RequestRefusedError

_STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class GenerateEndpoints:
    """Handlers of one engine."""

    def __init__(self, engine: EngineService, asks: Asks, model: str) -> None:
        self._engine = engine
        self._asks = asks
        self._model = model

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Route the endpoints."""
        router.add_post("/v1/chat/completions", self.chat)
        router.add_post("/v1/completions", self.completion)
        router.add_post("/v1/messages", self.messages)
        router.add_post("/v1/messages/count_tokens", self.count_tokens)
        router.add_post("/v1/responses", self.responses)
        router.add_post("/generate", self.generate)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        ask = self._asks.chat(decode(await request.read(), ChatBody))
        return await self._answer(request, ask, ChatForm(ask, ask.model or self._model))

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        ask = self._asks.completion(decode(await request.read(), CompletionBody))
        return await self._answer(request, ask, CompletionForm(ask, ask.model or self._model))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages."""
        ask = self._asks.messages(decode(await request.read(), MessagesBody))
        return await self._answer(request, ask, MessagesForm(ask, ask.model))

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages/count_tokens."""
        tokens = self._asks.count(decode(await request.read(), CountBody))
        return web.Response(body=msgspec.json.encode({"input_tokens": tokens}), content_type="application/json")

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses."""
        body = decode(await request.read(), ResponsesBody)
        ask = self._asks.responses(body)
        return await self._answer(request, ask, ResponsesForm(ask, ask.model or self._model, body))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """POST /generate."""
        ask = self._asks.generate(decode(await request.read(), GenerateBody))
        if ask.stream:
            return await self._stream(request, ask, lambda wire: StreamedGenerate(wire, ask))
        sink = Collected()
        await self._run(ask, sink)
        end = sink.done.result()
        answer = generate_answer(end, ask, ask.output.text(0, end.output_tokens), end.output_tokens)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _answer(self, request: web.Request, ask: Ask, form: Form) -> web.StreamResponse:
        if ask.stream:
            return await self._stream(request, ask, lambda wire: Streamed(wire, ask, form, self._cached))
        sink = Collected()
        await self._run(ask, sink)
        end = sink.done.result()
        body = form.whole(end, ask.output.text(0, end.output_tokens))
        return web.Response(body=body, content_type="application/json")

    async def _stream(self, request: web.Request, ask: Ask, sink_on: Callable[[Wire], Collected]) -> web.StreamResponse:
        if self._engine.is_live(ask.rid):
            raise BadRequestError(f"rid {ask.rid!r} is in use; choose another", param="rid")
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise asyncio.CancelledError
        wire = Wire(transport, chunked=request.version >= HttpVersion11)
        try:
            await self._run(ask, sink_on(wire))
        except BadRequestError as error:
            wire.send(stream_error(request.path, error))
        with suppress(ConnectionError):  # the client may have left just after the last byte
            await response.write_eof()
        return response

    def _cached(self, rid: str) -> int | None:
        core = self._engine.core
        return core.cached_tokens(rid) if core.has(rid) else None

    async def _run(self, ask: Ask, sink: Collected) -> None:
        """Have the engine do it; returns when the sink has seen the end."""
        try:
            self._engine.submit(ask, sink)
        except RequestRefusedError as error:
            raise BadRequestError(str(error), param="rid" if "rid" in str(error) else None) from None
        try:
            await sink.done
        except asyncio.CancelledError:
            self._engine.drop(ask.rid)
            raise
