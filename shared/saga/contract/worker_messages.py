"""What a worker agent says of its engine: presence, load, residency."""

from typing import TypeAlias

import msgspec

from saga.contract.ids import GatewayId, PoolId, SessionId, StepId, TenantId, WorkerId
from saga.contract.vocabulary import CostModel, LetGoReason, Message


class WorkerHello(Message, frozen=True, kw_only=True, gc=False):
    """Who a worker is. Travels alone when it joins, and inside each Heartbeat for those who come later."""

    worker_id: WorkerId
    engine_url: str
    pool: PoolId
    epoch: int  # engine incarnation: grows with each restart of the engine
    page_tokens: int
    kv_tokens: int  # capacity of the engine's KV pool
    context_tokens: int
    max_running: int
    session_tags: bool  # the engine honours session_id
    speed: float = 1.0  # engine-seconds per real second; above 1 only for a simulated engine
    shrink: int = 1  # by which a simulated engine's lengths and rates were divided
    cost: CostModel = CostModel()
    host_kv_tokens: int = 0  # of its host KV tier, which has a copy of all that the engine cached; 0: there is none
    load_s_per_token: float = 0.0  # engine-seconds to load KV back from there; 0: unknown
    shared_tier: str = ""  # a KV store of this name has all it caches, for the others that name it; empty: none
    shared_load_s_per_token: float = 0.0  # engine-seconds to read KV from there; its engine computes meanwhile


class Heartbeat(Message, frozen=True, kw_only=True, gc=False):
    """Once a second. Corrects drift and shows foreign load."""

    worker: WorkerHello
    healthy: bool  # the engine answers
    running: int  # requests, as the engine says
    waiting: int
    used_tokens: int  # by running requests; evictable cache is not used
    residency_seq: int  # of the last ResidencyDelta sent
    open_session_tags: int = 0
    leases: int = 0
    draining: bool = False  # nothing new may start there; what runs goes on


class WorkerLeaving(Message, frozen=True, kw_only=True, gc=False):
    """Nothing new may start there. Its running steps go on unless the engine died."""

    worker_id: WorkerId
    epoch: int
    engine_died: bool


class PrefetchAsked(Message, frozen=True, kw_only=True, gc=False):
    """To the gateway that has the session's prompt: have its KV loaded, by a request without output, unless the session
    is back. A guess: nothing comes of one that is lost."""

    worker_id: WorkerId
    engine_url: str
    gateway_id: GatewayId
    tenant: TenantId
    session: SessionId
    step_id: StepId  # the session's last step
    prompt_tokens: int  # of that step, as the engine counted


class KvAsk(Message, frozen=True, kw_only=True, gc=False):
    """To a worker agent, a request: what became of the KV that this session had there before this step?"""

    session: SessionId
    step_id: StepId  # of the session's that took it up again


class KvTold(Message, frozen=True, kw_only=True, gc=False):
    """Answer to KvAsk."""

    worker_id: WorkerId
    let_go: LetGoReason  # why its session tag was closed before the step; empty: not as far as `known_s` goes back
    known_s: float  # for so long nothing of this engine was missed or forgotten; negative: there is no engine


class PagesStored(msgspec.Struct, frozen=True, tag="s", gc=False):
    """Pages that the engine now holds."""

    hashes: bytes  # 8 bytes a page, in the order of the chain


class PagesRemoved(msgspec.Struct, frozen=True, tag="r", gc=False):
    """Pages that the engine no longer holds."""

    hashes: bytes


class AllCleared(msgspec.Struct, frozen=True, tag="c", gc=False):
    """The engine holds nothing any more."""


ResidencyChange: TypeAlias = PagesStored | PagesRemoved | AllCleared


class ResidencyDelta(Message, frozen=True, kw_only=True, gc=False):
    """Changes in order since the last one. A gap in seq, or a new epoch, asks for a snapshot."""

    worker_id: WorkerId
    epoch: int
    seq: int  # one more with each delta of this epoch, from 1
    changes: tuple[ResidencyChange, ...]
    published_at: float = 0.0  # by the engine, of the oldest change in here; 0: unknown, or of the past


class ResyncRequest(Message, frozen=True, kw_only=True, gc=False):
    """Send me what you hold, to this subject."""

    worker_id: WorkerId
    inbox: str


class ResyncReply(Message, frozen=True, kw_only=True, gc=False):
    """One part of a snapshot: everything resident as of delta `seq`."""

    worker_id: WorkerId
    epoch: int
    seq: int
    part: int  # from 0
    parts: int
    hashes: bytes  # 8 bytes a page, at most MAX_CHAIN_PAGES
