"""The other endpoints: health, what this server is, its load, sessions, aborts, cache, metrics."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
from aiohttp import web
from msgspec import Struct

from saga.engine.config import EngineConfig
from saga.engine.http_bodies import decode
from saga.engine.http_errors import BadRequestError, error_response
from saga.engine.http_metrics import CONTENT_TYPE, EngineMetrics
from saga.engine.service import EngineService
from saga.engine.zmq_events import KvEventPublisher

# A router that gets a name here asks the network for that model's tokenizer; in a folder it finds none, and goes on.
LOCAL_FOLDER: Final = str(Path(__file__).parent)
SGLANG_VERSION: Final = "0.5.23"
"""The release whose interfaces are simulated."""

Fields = dict[str, Any]


class AbortBody(Struct):
    """POST /abort_request."""

    rid: str = ""
    abort_all: bool = False


class OpenSessionBody(Struct):
    """POST /open_session. `timeout`: seconds from now, not refreshed by use."""

    capacity_of_str_len: int
    session_id: str | None = None
    streaming: bool = False
    timeout: float | None = None


class CloseSessionBody(Struct):
    """POST /close_session."""

    session_id: str


class AdminEndpoints:
    """Handlers of one engine."""

    def __init__(
        self, engine: EngineService, settings: EngineConfig, publisher: KvEventPublisher, *, model: str
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._publisher = publisher
        self._model = model
        self._metrics = EngineMetrics(engine, model)
        engine.finished_sink = self._metrics.observe
        self._started = time.time()
        self._measured = (engine.now_s, 0)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Route the endpoints."""
        for path in ("/health", "/health_generate", "/ready"):
            router.add_get(path, self.health)
        for path in ("/server_info", "/get_server_info"):
            router.add_get(path, self.server_info)
        for path in ("/model_info", "/get_model_info"):
            router.add_get(path, self.model_info)
        router.add_get("/v1/models", self.models)
        router.add_get("/v1/loads", self.loads)
        router.add_get("/metrics", self.metrics)
        router.add_post("/abort_request", self.abort)
        router.add_post("/open_session", self.open_session)
        router.add_post("/close_session", self.close_session)
        router.add_route("*", "/flush_cache", self.flush)

    async def health(self, request: web.Request) -> web.Response:
        """GET /health."""
        del request
        return web.Response()

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        del request
        card = {
            "id": self._model,
            "object": "model",
            "created": int(self._started),
            "owned_by": "sglang",
            "root": self._model,
            "parent": None,
            "max_model_len": self._engine.core.profile.context_tokens,
        }
        return _json({"object": "list", "data": [card]})

    async def model_info(self, request: web.Request) -> web.Response:
        """GET /model_info."""
        del request
        return _json(
            {
                "model_path": self._model,
                "tokenizer_path": LOCAL_FOLDER if self._settings.compat else self._model,
                "is_generation": True,
                "preferred_sampling_params": None,
                "weight_version": "default",
            }
        )

    async def server_info(self, request: web.Request) -> web.Response:
        """GET /server_info: settings under SGLang's names, KV event discovery, state; our own under `saga_engine`."""
        del request
        core, lag, settings = self._engine.core, self._engine.lag, self._settings
        profile = core.profile
        info: Fields = {
            "version": SGLANG_VERSION,
            "model_path": self._model,
            "served_model_name": self._model,
            "context_length": profile.context_tokens,
            "page_size": profile.page_tokens,
            "max_total_num_tokens": profile.kv_pages * profile.page_tokens,
            "max_running_requests": profile.max_running,
            "chunked_prefill_size": profile.chunk_tokens,
            "enable_mixed_chunk": True,
            "schedule_policy": settings.schedule,
            "enable_priority_scheduling": settings.priority_scheduling,
            "radix_eviction_policy": settings.eviction,
            "enable_session_radix_cache": settings.session_radix_cache,
            "enable_hierarchical_cache": settings.host_kv_tokens > 0,
            "hicache_ratio": settings.host_kv_tokens / profile.kv_tokens,
            "hicache_size": 0,
            "enable_cache_report": True,
            "enable_metrics": True,
            "tp_size": 1,
            "dp_size": 1,
            "random_seed": settings.seed,
            "status": "ready",
            "kv_events": {
                "publisher": "zmq",
                "endpoint_host": self._publisher.host,
                "endpoint_port_base": self._publisher.port,
                "replay_endpoint_port_base": self._publisher.replay_port,
                "topic": self._publisher.topic,
                "block_size": profile.page_tokens,
                "dp_size": 1,
            },
            "internal_states": [
                {
                    "effective_max_running_requests_per_dp": profile.max_running,
                    "last_gen_throughput": self._gen_throughput(),
                    "lag_p99_s": lag.p99_s,
                    "lag_p99_fraction": lag.p99_fraction,
                    "step_s": lag.step_s,
                }
            ],
            "saga_engine": {
                "profile": profile.name,
                "speed": self._engine.speed,
                "shrink": profile.shrink,
                "mean_output_tokens": profile.mean_output_tokens,
                "cost": msgspec.to_builtins(profile.cost_model()),
                "load_s_per_token": profile.load_s_per_token if settings.host_kv_tokens else 0.0,
                "started_at": self._started,
            },
        }
        return _json(info)

    async def loads(self, request: web.Request) -> web.Response:
        """GET /v1/loads: one data-parallel rank."""
        del request
        core = self._engine.core
        pool, stats, page = core.pool, core.stats, core.profile.page_tokens
        capacity = pool.capacity_pages * page
        load: Fields = {
            "dp_rank": 0,
            "num_running_reqs": core.running,
            "num_waiting_reqs": core.waiting,
            "num_waiting_uncached_tokens": core.waiting_tokens,
            "num_used_tokens": pool.used_tokens,
            "num_total_tokens": pool.used_tokens + core.waiting_tokens,
            "max_total_num_tokens": capacity,
            "max_running_requests": core.profile.max_running,
            "token_usage": pool.used_tokens / capacity,
            "gen_throughput": self._gen_throughput(),
            "cache_hit_rate": stats.cached_tokens / stats.prompt_tokens if stats.prompt_tokens else 0.0,
            "utilization": core.running / core.profile.max_running,
            "total_prefill_uncached_tokens": stats.prefilled_tokens,
        }
        aggregate = {
            "total_running_reqs": core.running,
            "total_waiting_reqs": core.waiting,
            "total_reqs": core.running + core.waiting,
            "avg_token_usage": load["token_usage"],
            "avg_throughput": load["gen_throughput"],
            "avg_utilization": load["utilization"],
        }
        return _json(
            {
                "timestamp": datetime.now(UTC).isoformat(),
                "version": SGLANG_VERSION,
                "dp_rank_count": 1,
                "loads": [load],
                "aggregate": aggregate,
            }
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        del request
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def abort(self, request: web.Request) -> web.Response:
        """POST /abort_request: by rid prefix, or all."""
        body = decode(await request.read(), AbortBody)
        if not body.rid and not body.abort_all:
            raise BadRequestError("give rid, or set abort_all", param="rid")
        self._engine.abort("" if body.abort_all else body.rid)
        return web.Response()

    async def open_session(self, request: web.Request) -> web.Response:
        """POST /open_session: the id, as a JSON string."""
        body = decode(await request.read(), OpenSessionBody)
        session_id = body.session_id or uuid4().hex
        if not self._engine.open_session(session_id, body.timeout):
            return error_response(400, f"session {session_id!r} is still open; close it first", param="session_id")
        return _json(session_id)

    async def close_session(self, request: web.Request) -> web.Response:
        """POST /close_session: 200 also for unknown ones."""
        self._engine.close_session(decode(await request.read(), CloseSessionBody).session_id)
        return web.Response()

    async def flush(self, request: web.Request) -> web.Response:
        """GET or POST /flush_cache: only while idle."""
        if request.method not in {"GET", "POST"}:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "POST"])
        if self._engine.flush():
            return web.Response(text="Cache flushed.\n")
        return error_response(400, "the cache is flushed only while no request runs or waits; try again later")

    def _gen_throughput(self) -> float:
        """Tokens per engine-second since it was last asked, over at least a second."""
        now_s, tokens = self._engine.now_s, self._engine.core.stats.generated_tokens
        then_s, before = self._measured
        elapsed_s = now_s - then_s
        if elapsed_s >= 1.0:
            self._measured = (now_s, tokens)
        return (tokens - before) / elapsed_s if elapsed_s > 0.0 else 0.0


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
