"""What other routers ask of a worker that SAGA does not: loads under older names, and chats rendered.

Off unless `SAGA_ENGINE_COMPAT` (or `saga up --compat`): an SGLang 0.5.23 answers some of it, a vLLM the rest, and what
is on should be known. Seen to be asked: smg `/loads`, sglang-router's power_of_two `/get_load`, vllm-router's
cache_aware `/v1/chat/completions/render`, without which it silently loses its affinity.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from saga.engine.http_bodies import decode
from saga.engine.http_tokenize import TokenizeBody, tokens_of
from saga.engine.service import EngineService


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

    async def render(self, request: web.Request) -> web.Response:
        """POST /v1/.../render: the prompt as the engine would get it, without an answer."""
        body = decode(await request.read(), TokenizeBody)
        return _json({"model": body.model or self._model, "token_ids": tokens_of(body)})


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
