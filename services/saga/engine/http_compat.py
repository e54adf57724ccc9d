"""What other routers ask of a worker that SAGA does not: loads under older names, and prompts as tokens.

Off unless `SAGA_ENGINE_COMPAT` (or `saga up --compat`): an SGLang 0.5.23 answers some of it, a vLLM the rest, and what
is on should be known. Seen to be asked: smg `/loads`, sglang-router's power_of_two `/get_load`, vllm-router's
cache_aware `/tokenize` and `/v1/chat/completions/render`, without which it silently loses its affinity.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from saga.engine.http_bodies import decode
from saga.engine.http_errors import BadRequestError
from saga.engine.service import EngineService
from saga.kv.chat_forms import readable
from saga.kv.tokens import decode_ids, encode_text, render_chat


class TokenizeBody(Struct):
    """POST /tokenize: a text or a chat."""

    model: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


class CompatEndpoints:
    """Handlers of one engine."""

    def __init__(
        self, engine: EngineService, model: str, loads: Callable[[web.Request], Awaitable[web.Response]]
    ) -> None:
        self._engine = engine
        self._model = model
        self._loads = loads

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Route the endpoints."""
        router.add_get("/loads", self._loads)
        router.add_get("/get_load", self.get_load)
        router.add_post("/tokenize", self.tokenize)
        router.add_post("/v1/tokenize", self.tokenize)
        for path in ("/v1/chat/completions/render", "/v1/completions/render"):
            router.add_post(path, self.render)

    async def get_load(self, request: web.Request) -> web.Response:
        """GET /get_load: one data-parallel rank, as SGLang before 0.5.6 told it."""
        del request
        core = self._engine.core
        running, waiting = core.running, core.waiting
        tokens = core.pool.used_tokens + core.waiting_tokens
        load = {"dp_rank": 0, "num_reqs": running + waiting, "num_waiting_reqs": waiting, "num_tokens": tokens}
        return _json([load])

    async def tokenize(self, request: web.Request) -> web.Response:
        """POST /tokenize."""
        tokens = _tokens(decode(await request.read(), TokenizeBody))
        context_tokens = self._engine.core.profile.context_tokens
        return _json({"tokens": tokens, "count": len(tokens), "max_model_len": context_tokens})

    async def render(self, request: web.Request) -> web.Response:
        """POST /v1/.../render: the prompt as the engine would get it, without an answer."""
        body = decode(await request.read(), TokenizeBody)
        return _json({"model": body.model or self._model, "token_ids": _tokens(body)})


def _tokens(body: TokenizeBody) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise BadRequestError("give exactly one of prompt and messages", param="prompt")
    text = body.prompt
    if text is None:
        try:
            text = render_chat(readable(body.messages or []))
        except ValueError as error:
            raise BadRequestError(str(error), param="messages") from None
    return decode_ids(encode_text(text))


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
