"""Sends the requests without output that load a session's KV ahead of its return. Whose and when, worker agents say.

Through /generate with token ids and `max_new_tokens` 0, the one form in which SGLang takes a request without output:
completions refuse it, chat takes it for "no limit". The ids are our own rendering of the session's last prompt, so one
whose length the engine counted otherwise is not sent: it would fill the cache with what nobody asks for.
"""

import asyncio
from typing import Final

import msgspec

from saga.gateway import http_metrics as metrics
from saga.gateway.events import EndPrefetch, Prefetch, Prefetched
from saga.gateway.http_connection import EngineLostError
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import Departure, EngineClient, LeaseLostError
from saga.gateway.sessions import SessionChains
from saga.gateway.tenants import Tenants
from saga.kv.tokens import decode_ids, token_count

PATH: Final = "/generate"
WITHIN_S: Final = 30.0  # what still waits at the engine then is not wanted
PRIORITY: Final = -1  # below every step's, where the engine goes by priority


class Prefetcher:
    """One gateway's."""

    def __init__(self, desk: Desk, engines: EngineClient, tenants: Tenants, chains: SessionChains) -> None:
        self._desk = desk
        self._engines = engines
        self._tenants = tenants
        self._chains = chains

    def perform(self, effect: Prefetch | EndPrefetch) -> None:
        """Send one, or end it."""
        if isinstance(effect, EndPrefetch):
            self._desk.spawn(self._engines.abort(effect.engine_url, effect.rid), "end prefetch")
        else:
            self._desk.spawn(self._send(effect), "prefetch")

    def body(self, prefetch: Prefetch) -> bytes | None:
        """JSON for the engine; None when the prompt is not at hand as the engine knows it."""
        ask = prefetch.ask
        prompt, tenant = self._chains.last(ask.session), self._tenants.named(ask.tenant)
        if prompt is None or tenant is None or token_count(prompt.token_bytes) != ask.prompt_tokens:
            return None
        fields: dict[str, object] = {
            "input_ids": decode_ids(prompt.token_bytes),
            "sampling_params": {"max_new_tokens": 0},
            "rid": prefetch.rid,
            "priority": PRIORITY,
        }
        if tenant.cache_salt:
            fields["cache_salt"] = tenant.cache_salt
        return msgspec.json.encode(fields)

    async def _send(self, prefetch: Prefetch) -> None:
        outcome = "unknown_prompt"
        try:
            body = self.body(prefetch)
            if body is not None:
                outcome = await self._answer(prefetch, body)
        finally:
            metrics.PREFETCHES.labels(outcome).inc()
            self._desk.tell(Prefetched(prefetch.ask.session, prefetch.rid))

    async def _answer(self, prefetch: Prefetch, body: bytes) -> str:
        """How it went, as the metric has it."""
        url = prefetch.ask.engine_url
        try:
            async with asyncio.timeout(WITHIN_S):
                reply = await self._engines.post(url, PATH, body, Departure(lambda: True))
                try:
                    await reply.read()
                finally:
                    reply.close()
        except TimeoutError:
            await self._engines.abort(url, prefetch.rid)
            return "late"
        except (EngineLostError, LeaseLostError):
            return "engine_lost"
        return "loaded" if reply.status == 200 else "refused"
