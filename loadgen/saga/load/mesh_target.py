"""Where a replay is sent: a mesh started for one system, or a gateway that somebody else runs.

Both say what the engines behind them are. Called by bench_live; starting and stopping processes is saga.cli's business.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import SYSTEMS, plan
from saga.cli.sglang import beside
from saga.contract.errors import StartError
from saga.engine.profile import load_profile
from saga.load.client import GatewayClient, GatewayError, Model
from saga.load.settings import SHRUNK_PAGE_TOKENS, BenchSettings

LAG_PATIENCE_S = 5.0
UNKNOWN_TOKENS = 2**40  # no limit that we know of
SHOWN_MODELS = 8
WORKERS_WITHIN_S = 60.0
WORKERS_POLL_S = 0.1


class Engines(Struct, frozen=True):
    """The engines of a pool. Tokens are those before shrinking; `workers` and `kv_tokens` 0: unknown."""

    profile: str
    speed: float
    shrink: int
    context_tokens: int
    kv_tokens: int
    page_tokens: int
    workers: int


class Target(Struct, frozen=True):
    """A running gateway; `engine_urls` is empty when the engines are not ours to ask."""

    gateway_url: str
    engine_urls: tuple[str, ...] = ()


class _InternalState(Struct):
    lag_p99_fraction: float | None = None


class _ServerInfo(Struct):
    internal_states: list[_InternalState] = []


def own_engines(settings: BenchSettings) -> Engines:
    """The engines a mesh of ours will have. Raises UnknownProfileError with the known names."""
    profile = load_profile(settings.profile)
    page_tokens = settings.page_tokens or (profile.page_tokens if settings.shrink == 1 else SHRUNK_PAGE_TOKENS)
    return Engines(
        profile=profile.name,
        speed=settings.speed,
        shrink=settings.shrink,
        context_tokens=profile.context_tokens,
        kv_tokens=profile.kv_tokens,
        page_tokens=page_tokens,
        workers=settings.workers,
    )


async def target_engines(settings: BenchSettings, url: str) -> Engines:
    """The engines behind an endpoint, as its `/v1/models` says. Of those that are not SAGA it says little: speed and
    shrink are then the settings', KV and workers unknown. Raises GatewayError when it does not answer.
    """
    model = await target_model(settings, url)
    facts = model.saga
    if facts is None:
        context_tokens = model.max_model_len * settings.shrink if model.max_model_len else UNKNOWN_TOKENS
        return Engines(
            profile=model.id,
            speed=settings.speed,
            shrink=settings.shrink,
            context_tokens=context_tokens,
            kv_tokens=0,
            page_tokens=settings.page_tokens or (SHRUNK_PAGE_TOKENS if settings.shrink > 1 else 1),
            workers=0,
        )
    return Engines(
        profile=model.id,
        speed=facts.speed,
        shrink=facts.shrink,
        context_tokens=facts.context_tokens * facts.shrink,
        kv_tokens=facts.kv_tokens * facts.shrink // max(1, facts.workers),
        page_tokens=facts.page_tokens,
        workers=facts.workers,
    )


async def target_model(settings: BenchSettings, url: str) -> Model:
    """The model to replay on. Raises GatewayError when the endpoint does not answer, or has not the one asked for."""
    async with GatewayClient(url, settings.api_key) as client:
        models = await client.models()
    if not settings.target_model:
        return first_model(models, url)
    for model in models:
        if model.id == settings.target_model:
            return model
    known = ", ".join([model.id for model in models][:SHOWN_MODELS])
    raise GatewayError(f"{url}/v1/models has no {settings.target_model!r}; it lists {known or 'none'}")


def first_model(models: list[Model], url: str) -> Model:
    """The model to replay on: the first whose engines the gateway knows, else the first."""
    if not models:
        raise GatewayError(f"{url}/v1/models lists no model: no worker has joined yet")
    return next((model for model in models if model.saga is not None), models[0])


@asynccontextmanager
async def own_mesh(
    settings: BenchSettings, engines: Engines, system: str, servers: Sequence[str] = ()
) -> AsyncIterator[Target]:
    """A mesh of our own for one system, gone with its state when the block ends. `servers`: real ones to attach to."""
    state_dir = Path(tempfile.mkdtemp(prefix="saga-bench-"))
    try:
        valued = settings.sglang is not None and settings.sglang.retention_dir is not None and system == "saga"
        mesh_settings = MeshSettings(
            retention_policy="values" if valued else "",  # else the plugin has nothing to order by
            workers=settings.workers,
            profile=settings.profile,
            speed=settings.speed,
            shrink=settings.shrink,
            page_tokens=engines.page_tokens,
            system=system,
            state_dir=state_dir,
            # Gaps are as much shorter as engines are faster, so patience has to be, too.
            env={"admission": {"SAGA_ADMISSION_SPEED": str(settings.speed)}},
        )
        processes = beside(plan(mesh_settings), servers) if servers else None
        async with Mesh(mesh_settings, processes=processes) as mesh:
            await all_workers(mesh.gateway_url, settings.workers)
            yield Target(mesh.gateway_url, tuple(mesh.engine_urls))
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


async def all_workers(gateway_url: str, workers: int) -> None:
    """Returns when the gateway knows all workers: a mesh is ready with one, but a benchmark is of all of them."""
    known = 0
    async with GatewayClient(gateway_url) as client:
        for _ in range(int(WORKERS_WITHIN_S / WORKERS_POLL_S)):
            known = max((model.saga.workers for model in await client.models() if model.saga), default=0)
            if known >= workers:
                return
            await asyncio.sleep(WORKERS_POLL_S)
    raise GatewayError(f"{gateway_url} knows {known} of {workers} workers after {WORKERS_WITHIN_S:g} s")


def check_systems(names: Sequence[str]) -> None:
    """Raises StartError for the first system that no mesh can be, with the known ones."""
    for name in names:
        if name not in SYSTEMS:
            raise StartError(f"unknown system {name!r}; known are {', '.join(sorted(SYSTEMS))}")


async def worst_lag(target: Target) -> float | None:
    """Largest P99 of the engines' lag as a fraction of a step; None where no engine could be asked."""
    lags = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LAG_PATIENCE_S)) as http:
        for url in target.engine_urls:
            try:
                async with http.get(f"{url}/server_info") as response:
                    info = msgspec.json.decode(await response.read(), type=_ServerInfo)
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
                continue  # an engine killed during the run has no lag to report
            lags += [state.lag_p99_fraction for state in info.internal_states if state.lag_p99_fraction is not None]
    return max(lags, default=None)
