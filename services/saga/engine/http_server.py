"""Runs an engine behind HTTP: sockets, routes, the task that answers replays; ends in the reverse order."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import zmq
from aiohttp import web

from saga.engine.config import PREFIX, EngineConfig, engine_of, profile_of
from saga.engine.http_admin import AdminEndpoints
from saga.engine.http_ask import Asks
from saga.engine.http_compat import CompatEndpoints
from saga.engine.http_errors import api_errors
from saga.engine.http_generate import GenerateEndpoints
from saga.engine.http_tokenize import TokenizeEndpoint
from saga.engine.service import EngineService
from saga.engine.zmq_events import KvEventPublisher
from saga.runtime.clock import Clock, MonotonicClock
from saga.runtime.errors import StartError

_SHUTDOWN_S = 1.0


class RunningEngine:
    """A served engine: where it listens, and the engine itself."""

    def __init__(self, engine: EngineService, publisher: KvEventPublisher, host: str, port: int) -> None:
        self.engine = engine
        self.publisher = publisher
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def serving(settings: EngineConfig, clock: Clock | None = None) -> AsyncIterator[RunningEngine]:
    """Serve an engine until the block ends. Raises StartError for a bad profile or a port that is taken."""
    profile = profile_of(settings)
    model = settings.model_name or profile.model
    try:
        publisher = KvEventPublisher(
            settings.kv_events_host, settings.kv_events_port, settings.kv_replay_port, settings.kv_events_topic
        )
    except zmq.ZMQError as error:
        wanted = f"{PREFIX}KV_EVENTS_PORT={settings.kv_events_port}, {PREFIX}KV_REPLAY_PORT={settings.kv_replay_port}"
        raise StartError(f"{wanted}: {error}") from None
    engine = EngineService(
        profile,
        engine_of(settings),
        clock or MonotonicClock(),
        publisher,
        speed=settings.speed,
    )
    app = web.Application(middlewares=[api_errors], client_max_size=settings.max_body_bytes)
    GenerateEndpoints(engine, Asks(profile, settings.seed), model).add_to(app.router)
    admin = AdminEndpoints(engine, settings, publisher, model=model)
    admin.add_to(app.router)
    TokenizeEndpoint(profile).add_to(app.router)
    if settings.compat:
        CompatEndpoints(engine, model, admin.loads).add_to(app.router)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S)
    replays = asyncio.create_task(publisher.serve_replays(), name="kv-replays")
    try:
        await runner.setup()
        port = await _listen(runner, settings)
        yield RunningEngine(engine, publisher, settings.host, port)
    finally:
        engine.close()
        await runner.cleanup()
        replays.cancel()
        with suppress(asyncio.CancelledError):
            await replays
        publisher.close()


async def _listen(runner: web.AppRunner, settings: EngineConfig) -> int:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise StartError(f"{PREFIX}HOST={settings.host}, {PREFIX}PORT={settings.port}: {error.strerror}") from None
    await web.SockSite(runner, listener, backlog=1024).start()
    return int(listener.getsockname()[1])
