"""Clusters to simulate: how many workers of which physical profile. TOML in `clusters/`, or a path to one."""

from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from saga.engine.profile import Profile, load_profile

MEMORY_SHARE = 0.9  # of HBM that weights and KV may take together; the rest is activations and graphs
UNLIMITED_KV_TOKENS = 1 << 40


class ClusterError(ValueError):
    """No such cluster, or one that cannot exist; the message names the constant."""


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal workers of one profile."""

    name: str
    profile: str
    workers: Annotated[int, Meta(ge=1)]


def known_clusters() -> list[str]:
    """Names of those that come with the laboratory."""
    folder = resources.files("saga.sim") / "clusters"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


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
        cluster = msgspec.structs.replace(cluster, workers=workers)
    profile = load_profile(cluster.profile)
    check_physical(profile)
    return cluster, profile


def check_physical(profile: Profile) -> None:
    """Raises ClusterError, naming the constant, for a profile that its own hardware could not be."""
    room_bytes = MEMORY_SHARE * profile.hbm_bytes - profile.weight_bytes
    if room_bytes <= 0:
        raise ClusterError(
            f"profile {profile.name}: weight_bytes {profile.weight_bytes:.3g} exceed {MEMORY_SHARE:.0%} of "
            f"hbm_bytes {profile.hbm_bytes:.3g}"
        )
    fits = int(room_bytes / profile.kv_bytes_per_token)
    if profile.kv_tokens > fits:
        raise ClusterError(
            f"profile {profile.name}: kv_tokens {profile.kv_tokens:,} exceed the {fits:,} that fit beside the weights "
            f"at kv_bytes_per_token {profile.kv_bytes_per_token:,.0f}"
        )
    if profile.context_tokens > profile.kv_tokens:
        raise ClusterError(
            f"profile {profile.name}: context_tokens {profile.context_tokens:,} exceed kv_tokens {profile.kv_tokens:,}"
        )
