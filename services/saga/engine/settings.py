"""How one engine schedules and caches: the SGLang flags that its core honours. A profile says what it is made of.

Not the service's configuration (that is `config`, read from the environment). Used by EngineCore, the service and the
simulator's systems.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Eviction = Literal["lru", "priority"]
"""SGLang's --radix-eviction-policy: least recently used first, or lowest request priority first and then so."""
Schedule = Literal["fcfs", "lpm", "lof"]
"""SGLang's --schedule-policy: first come first served, longest cached prefix first, longest allowed output first."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one EngineCore. Raises ValueError for a combination that SGLang refuses."""

    schedule: Schedule = "fcfs"
    eviction: Eviction = "lru"
    """--radix-eviction-policy: what counts among cached prefixes of as many open sessions."""
    priority_scheduling: bool = False
    """--enable-priority-scheduling: higher `priority` first, and preemption of far lower ones. Not with `lpm`."""
    session_radix_cache: bool = True
    """--enable-session-radix-cache: session tags act on eviction order."""
    host_kv_tokens: Annotated[int, Meta(ge=0)] = 0
    """Size of the host KV tier (HiCache, write-through); 0: no such tier."""

    def __post_init__(self) -> None:
        if self.priority_scheduling and self.schedule == "lpm":
            raise ValueError("priority_scheduling needs schedule fcfs or lof, as in SGLang; not lpm")
