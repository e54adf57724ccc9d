"""Clusters to simulate: how many workers of which physical profile. TOML in `clusters/`, or a path to one."""

from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from saga.engine.profile import Profile, load_profile
from saga.engine.settings import EngineSettings
from saga.engine.shared_tier import SharedTier

MEMORY_SHARE = 0.9  # of HBM that weights and KV may take together; the rest is activations and graphs
HOST_MEMORY_SHARE = 0.8  # of main memory that KV may take; the rest is the system, the server and its buffers
LEAST_FLOPS_SHARE = 0.95  # an input embedding is looked up, not multiplied
UNLIMITED_KV_TOKENS = 1 << 40


class ClusterError(ValueError):
    """No such cluster, or one that cannot exist; the message names the constant."""


class OtherWorkers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Workers of another profile in the same pool."""

    profile: str
    workers: Annotated[int, Meta(ge=1)]


class SharedStore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A KV store that all workers of a cluster reach over the network."""

    kv_bytes: Annotated[float, Meta(gt=0)]
    bytes_per_s: Annotated[float, Meta(gt=0)]  # of each worker's link, each direction
    total_bytes_per_s: Annotated[float, Meta(ge=0)] = 0.0  # of the store, each direction; 0: no limit but the links'


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Workers of one profile, and in a mixed cluster others beside them that run the same model."""

    name: str
    profile: str
    workers: Annotated[int, Meta(ge=1)]
    others: tuple[OtherWorkers, ...] = ()
    late: Annotated[int, Meta(ge=0)] = 0
    """Of `workers`, the last so many: they join, empty, when `late_share` of a run's conversations have begun."""
    late_share: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    shared_tier: SharedStore | None = None


def known_clusters() -> list[str]:
    """Names of those that come with the laboratory."""
    folder = resources.files("saga.sim") / "clusters"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def with_host_tier(engine: EngineSettings, profile: Profile, tier: str) -> EngineSettings:
    """The engine's settings with the profile's host KV tier, or `off`. Raises ClusterError when it has none."""
    if tier == "off":
        return engine
    if not profile.host_kv_tokens:
        raise ClusterError(f"profile {profile.name} has no host_kv_tokens: there is no host tier to switch on")
    return msgspec.structs.replace(engine, host_kv_tokens=profile.host_kv_tokens)


def shared_tier_of(cluster: Cluster, profile: Profile, tier: str) -> SharedTier | None:
    """The store behind the host tiers; None where none is asked for. Raises ClusterError when the cluster has none."""
    if tier != "shared":
        return None
    store = cluster.shared_tier
    if store is None:
        raise ClusterError(f"cluster {cluster.name} has no [shared_tier]: there is none to switch on")
    for other in other_profiles(cluster, profile):
        if other.kv_bytes_per_token != profile.kv_bytes_per_token:
            told = f"kv_bytes_per_token of {other.name} is not that of {profile.name}"
            raise ClusterError(f"cluster {cluster.name}: {told}: their engines cannot read each other's pages")
    page_bytes = profile.page_tokens * profile.kv_bytes_per_token
    return SharedTier(int(store.kv_bytes / page_bytes), page_bytes, store.bytes_per_s, store.total_bytes_per_s)


def load_cluster(name_or_path: str, workers: int | None = None) -> tuple[Cluster, Profile]:
    """A cluster and its workers' profile. Raises ClusterError, or UnknownProfileError for the profile."""
    if name_or_path.endswith(".toml"):
        try:
            text = Path(name_or_path).read_bytes()
        except OSError as error:
            raise ClusterError(f"cannot read cluster {name_or_path}: {error.strerror}") from None
    elif name_or_path in known_clusters():
        text = (resources.files("saga.sim") / "clusters" / f"{name_or_path}.toml").read_bytes()
    else:
        known = ", ".join(known_clusters())
        raise ClusterError(f"unknown cluster {name_or_path!r}; known: {known}; or a path to a .toml file")
    try:
        cluster = msgspec.toml.decode(text, type=Cluster)
    except msgspec.DecodeError as error:
        raise ClusterError(f"cluster {name_or_path}: {error}") from None
    if workers is not None:
        if workers < 1:
            raise ClusterError(f"cluster {cluster.name}: workers {workers} is less than 1")
        cluster = msgspec.structs.replace(cluster, workers=workers)
    if cluster.late >= cluster.workers:
        told = f"late {cluster.late} of {cluster.workers} workers: one must be there from the start"
        raise ClusterError(f"cluster {cluster.name}: {told}")
    profile = load_profile(cluster.profile)
    check_physical(profile)
    return cluster, profile


def other_profiles(cluster: Cluster, profile: Profile) -> tuple[Profile, ...]:
    """Of each worker beside those of `profile`. Raises ClusterError for one that could not share their pool."""
    found: list[Profile] = []
    for others in cluster.others:
        other = load_profile(others.profile)
        check_physical(other)
        for name in ("model", "page_tokens", "context_tokens"):
            if getattr(other, name) != getattr(profile, name):
                told = f"{name} {getattr(other, name)!r} of {other.name} is not {getattr(profile, name)!r}"
                raise ClusterError(f"cluster {cluster.name}: {told}, that of {profile.name}: one pool needs one")
        found += [other] * others.workers
    return tuple(found)


def check_physical(profile: Profile) -> None:
    """Raises ClusterError, naming the constant, for a profile that its own hardware could not be.

    A shrunk profile (a token stands for several) is judged as what it stands for.
    """
    for refusal in (_beyond_memory(profile), _beyond_speed(profile), _beyond_host(profile)):
        if refusal:
            raise ClusterError(f"profile {profile.name}: {refusal}")


def _beyond_memory(profile: Profile) -> str:
    p = profile
    room_bytes = MEMORY_SHARE * p.hbm_bytes - p.weight_bytes
    fits = int(room_bytes / p.kv_bytes_per_token)
    if room_bytes <= 0:
        return f"weight_bytes {p.weight_bytes:.3g} exceed {MEMORY_SHARE:.0%} of hbm_bytes {p.hbm_bytes:.3g}"
    if p.expert_weight_bytes > p.weight_bytes:
        return f"expert_weight_bytes {p.expert_weight_bytes:.3g} exceed weight_bytes {p.weight_bytes:.3g}"
    if p.kv_tokens > fits:
        beside = f"beside the weights at kv_bytes_per_token {p.kv_bytes_per_token:,.0f}"
        return f"kv_tokens {p.kv_tokens:,} exceed the {fits:,} that fit {beside}"
    if p.context_tokens > p.kv_tokens:
        return f"context_tokens {p.context_tokens:,} exceed kv_tokens {p.kv_tokens:,}"
    return ""


def _beyond_speed(profile: Profile) -> str:
    p = profile
    if not 0 < p.mfu <= 1:
        return f"mfu {p.mfu:.3g} is not a share of peak_flops: above 0, at most 1"
    if not 0 < p.mbu <= 1:
        return f"mbu {p.mbu:.3g} is not a share of mem_bytes_per_s: above 0, at most 1"
    # A forward pass multiplies and adds each active parameter once per token, and none takes more than 2 bytes.
    active_bytes = p.weight_bytes - p.expert_weight_bytes * max(0.0, 1 - p.experts_per_token / p.experts)
    least_flops = LEAST_FLOPS_SHARE * active_bytes
    flops = p.flops_per_token / p.shrink
    if flops < least_flops:
        weights = f"{active_bytes:.3g} bytes of active weights: 2 for each parameter of at most 2 bytes"
        return f"flops_per_token {flops:.3g} are less than the {least_flops:.3g} implied by {weights}"
    return ""


def _beyond_host(profile: Profile) -> str:
    p = profile
    fits = int(HOST_MEMORY_SHARE * p.host_bytes / p.kv_bytes_per_token)
    if p.host_kv_tokens > fits:
        room = f"{HOST_MEMORY_SHARE:.0%} of host_bytes {p.host_bytes:.3g}"
        return f"host_kv_tokens {p.host_kv_tokens:,} exceed the {fits:,} that fit in {room}"
    if 0 < p.host_kv_tokens <= p.kv_tokens:
        return f"host_kv_tokens {p.host_kv_tokens:,} do not exceed kv_tokens {p.kv_tokens:,}, all of it written through"
    if p.host_kv_tokens and not (p.host_bytes_per_s and p.host_bytes_per_s_both):
        return "host_kv_tokens need host_bytes_per_s and host_bytes_per_s_both"
    if p.host_bytes_per_s > p.host_link_bytes_per_s:
        return f"host_bytes_per_s {p.host_bytes_per_s:.3g} exceed host_link_bytes_per_s {p.host_link_bytes_per_s:.3g}"
    if p.host_bytes_per_s_both > p.host_bytes_per_s:
        return f"host_bytes_per_s_both {p.host_bytes_per_s_both:.3g} exceed host_bytes_per_s {p.host_bytes_per_s:.3g}"
    return ""
