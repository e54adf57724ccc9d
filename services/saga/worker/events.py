"""What happens to a worker agent's core besides messages, and what it asks of its engine.

Events come from `http_sglang` and `zmq_events` through the shell; the four engine effects go back the same way.
"""

from typing import TypeAlias

import msgspec

from saga.contract.ids import SessionTag
from saga.contract.messages import CostModel, ResidencyChange
from saga.kernel.effects import Effect, Received, Reconnected, Tick
from saga.worker.tags import TagRecord


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself when the agent attaches."""

    model: str
    page_tokens: int
    kv_tokens: int
    context_tokens: int
    max_running: int
    session_tags: bool  # it honours session_id
    speed: float = 1.0
    shrink: int = 1
    cost: CostModel = CostModel()
    host_kv_tokens: int = 0  # 0: no host KV tier
    load_s_per_token: float = 0.0  # from there; 0: unknown
    shared_tier: str = ""  # behind the host tier, shared with other engines; empty: none
    shared_load_s_per_token: float = 0.0  # from there


class Restored(msgspec.Struct, frozen=True):
    """Before any other event: open tags and running leases as the journal of the last run has them."""

    records: tuple[TagRecord, ...]


class Attached(msgspec.Struct, frozen=True):
    """The engine answers, and its events follow from the first one that can still be had."""

    facts: EngineFacts
    epoch: int  # higher than any before, also over restarts of the agent


class StoredBy(msgspec.Struct, frozen=True, gc=False):
    """Whose request stored pages, and after which page."""

    change: int  # index of the PagesStored
    tag: SessionTag  # empty: of no session
    parent: bytes  # hash of the page before the first; empty: there is none


class KvEvents(msgspec.Struct, frozen=True):
    """Changes of the engine's cache, in order and without a gap."""

    changes: tuple[ResidencyChange, ...]
    published_at: float = 0.0  # wall time, by the engine; 0: unknown, or of the past before the agent came
    stored_by: tuple[StoredBy, ...] = ()  # of the changes that store pages


class KvEventsLost(msgspec.Struct, frozen=True):
    """The engine no longer has some events: what it holds is unknown from here on, except what new events tell."""


class LoadSeen(msgspec.Struct, frozen=True):
    """The engine answered a poll."""

    running: int
    waiting: int
    used_tokens: int


class LoadMissed(msgspec.Struct, frozen=True):
    """The engine did not answer a poll in time; its process may live."""


class EngineGone(msgspec.Struct, frozen=True):
    """The engine's process is gone, or was replaced by another."""


class TagClosed(msgspec.Struct, frozen=True):
    """The engine has closed a session tag, as asked."""

    tag: SessionTag


class TagCloseFailed(msgspec.Struct, frozen=True):
    """The engine could not be asked."""

    tag: SessionTag


class BusAway(msgspec.Struct, frozen=True):
    """Nobody can be heard: until Reconnected, a lease that is not renewed says nothing about its gateway."""


class Drain(msgspec.Struct, frozen=True):
    """An operator wants the worker empty, or not any more."""

    on: bool


class Leave(msgspec.Struct, frozen=True):
    """The agent is told to stop."""


class AbortRequest(msgspec.Struct, frozen=True, gc=False):
    """Effect: abort this request at the engine."""

    rid: str


class CloseTag(msgspec.Struct, frozen=True, gc=False):
    """Effect: close this session tag at the engine; answered with TagClosed or TagCloseFailed."""

    tag: SessionTag


class SetRetention(msgspec.Struct, frozen=True, gc=False):
    """Effect: what a session tag is worth from now on; higher is kept longer, among tags as much referenced."""

    tag: SessionTag
    value: float


class CheckEngine(msgspec.Struct, frozen=True, gc=False):
    """Effect: somebody says that the engine died; look now, not at the next poll."""


WorkerEvent: TypeAlias = (
    Received
    | Tick
    | Restored
    | Attached
    | KvEvents
    | KvEventsLost
    | LoadSeen
    | LoadMissed
    | EngineGone
    | TagClosed
    | TagCloseFailed
    | BusAway
    | Reconnected
    | Drain
    | Leave
)
WorkerEffect: TypeAlias = Effect | AbortRequest | CloseTag | SetRetention | CheckEngine
