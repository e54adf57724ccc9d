"""Settings of the engine service, from SAGA_ENGINE_*; and the profile that follows from them."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from saga.engine.host_tier import HostTier
from saga.engine.profile import Profile, UnknownProfileError, load_profile
from saga.engine.settings import EngineSettings, Eviction, Schedule
from saga.runtime.errors import StartError

PREFIX = "SAGA_ENGINE_"

Port = Annotated[int, Meta(ge=0, le=65535)]


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How one simulated engine runs."""

    host: str = "127.0.0.1"
    port: Port = 0
    """HTTP; 0 takes any free port. What it became is logged, and written to `port_file`."""
    port_file: Path | None = None
    profile: str = "h100x1-llama3-8b"
    """A name, or a path to a TOML file."""
    speed: Annotated[float, Meta(gt=0)] = 1.0
    """Engine-seconds per real second."""
    shrink: Annotated[int, Meta(ge=1)] = 1
    """Divides context, KV, prefill chunks and rates."""
    page_tokens: Annotated[int, Meta(ge=0)] = 0
    """0: the profile's."""
    kv_tokens: Annotated[int, Meta(ge=0)] = 0
    """After shrinking. 0: the profile's; something very large stands for unlimited."""
    max_running: Annotated[int, Meta(ge=0)] = 0
    """0: the profile's."""
    model_name: str = ""
    """Empty: the profile's model."""
    seed: int = 0
    """Of the text of requests that bring none. Engines that continue each other's streams need the same."""
    kv_events_host: str = "127.0.0.1"
    kv_events_port: Port = 0
    """ZMQ PUB; 0 takes any free port."""
    kv_replay_port: Port = 0
    """ZMQ ROUTER; 0 takes any free port."""
    kv_events_topic: str = "kv"
    session_radix_cache: bool = True
    eviction: Eviction = "lru"
    priority_scheduling: bool = False
    schedule: Schedule = "fcfs"
    host_kv_tokens: Annotated[int, Meta(ge=0)] = 0
    """Size of a host KV tier, more than `kv_tokens`; after shrinking. 0: no such tier."""
    compat: bool = False
    """Also answers what other routers ask of a worker; see `http_compat.py`."""
    max_body_bytes: Annotated[int, Meta(gt=0)] = 64 << 20


def engine_of(config: EngineConfig) -> EngineSettings:
    """The settings of its core. Raises StartError for a combination that SGLang refuses."""
    try:
        return EngineSettings(
            schedule=config.schedule,
            eviction=config.eviction,
            priority_scheduling=config.priority_scheduling,
            session_radix_cache=config.session_radix_cache,
            host_kv_tokens=config.host_kv_tokens,
        )
    except ValueError as error:
        raise StartError(f"{PREFIX}PRIORITY_SCHEDULING, {PREFIX}SCHEDULE: {error}") from None


def profile_of(settings: EngineConfig) -> Profile:
    """The profile with all overrides applied. Raises StartError that names the setting."""
    try:
        profile = load_profile(settings.profile)
    except UnknownProfileError as error:
        raise StartError(f"{PREFIX}PROFILE: {error}") from None
    # Page size first: a shrunk chunk is rounded to whole pages of the size that is used.
    if settings.page_tokens:
        profile = profile.with_page_tokens(settings.page_tokens)
    profile = profile.shrunk(settings.shrink)
    if settings.kv_tokens:
        profile = profile.with_kv_tokens(settings.kv_tokens)
    if settings.max_running:
        profile = msgspec.structs.replace(profile, max_running=settings.max_running)
    if settings.host_kv_tokens:
        try:
            HostTier(profile, settings.host_kv_tokens)
        except ValueError as error:
            raise StartError(f"{PREFIX}HOST_KV_TOKENS: {error}") from None
    if profile.kv_pages < 1:
        raise StartError(f"{PREFIX}KV_TOKENS={profile.kv_tokens}: less than one page of {profile.page_tokens} tokens")
    return profile
