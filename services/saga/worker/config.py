"""Settings of a worker agent: SAGA_WORKER_*, read once at the start."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_WORKER_"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One agent beside one engine rank."""

    engine_url: str = "http://127.0.0.1:30000"
    id: str = ""  # empty: from the engine's host and port; part of subjects, so letters, digits, - and _ only
    journal: Path | None = None  # file of open session tags; none: in the user's state directory, by id
    retention: str = "saga"  # for the gap after a step: saga, values (with the plugin), tags, walru, ttl, paper, lru
    prefetch: str = "saga"  # of what was let go to the engine's host KV tier, before its session returns; or off
    tag_ttl_s: float = 60.0  # with `tags`: engine-seconds that a tag stays open when no forecast comes
    tag_cap_s: float = 300.0  # with `tags`: engine-seconds that it stays open at most
    lease_ttl_s: float = 6.0  # of a lease of which only a renewal was heard
    poll_s: float = 0.5  # between two looks at the engine
    resync_jitter_s: float = 0.2  # a snapshot starts at a random moment of this span
    shared_tier: str = ""  # name of the store that the engine shares its KV through (HiCache L3); empty: none
    shared_tokens_per_s: float = 0.0  # of KV that the engine reads from there
    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot work."""
        parts = urlsplit(self.engine_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"engine_url {self.engine_url!r} is no http(s) URL")
        if self.id and not _NAME.fullmatch(self.id):
            raise ValueError(f"id {self.id!r} is not 1 to 64 letters, digits, - or _")
        for name in ("tag_ttl_s", "tag_cap_s", "lease_ttl_s", "poll_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.shared_tier and not _NAME.fullmatch(self.shared_tier):
            raise ValueError(f"shared_tier {self.shared_tier!r} is not 1 to 64 letters, digits, - or _")
        if not 0 <= self.shared_tokens_per_s < float("inf"):
            raise ValueError(f"shared_tokens_per_s must be a rate, not {self.shared_tokens_per_s}")
        if bool(self.shared_tier) != bool(self.shared_tokens_per_s):
            raise ValueError("shared_tier and shared_tokens_per_s go together: name the store, and say how fast it is")
        if self.resync_jitter_s < 0:
            raise ValueError(f"resync_jitter_s must not be negative, but is {self.resync_jitter_s}")

    @property
    def worker_id(self) -> str:
        """The id given, or one made of the engine's address."""
        if self.id:
            return self.id
        parts = urlsplit(self.engine_url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"{parts.hostname}-{port}")

    @property
    def journal_path(self) -> Path:
        """The file given, or one in the user's state directory."""
        if self.journal is not None:
            return self.journal
        return Path("~/.local/state/saga").expanduser() / f"worker-{self.worker_id}.journal"
