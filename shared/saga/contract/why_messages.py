"""What leaders remember of steps and workers, for people: asked by `saga why`, `saga workers` and `saga drain`."""

from typing import Literal, TypeAlias

import msgspec

from saga.contract.ids import NO_WORKER, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.misses import Loss, MissCause
from saga.contract.vocabulary import Message

Fact: TypeAlias = str | int | float
Standing = Literal["serving", "probation", "quarantined", "draining", "away"]


class Moment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to a step or a workflow, as one leader heard or decided it."""

    what: str  # a word of that leader
    at_s: float  # since that leader first heard of the step
    attempt: int = 0
    worker: WorkerId = NO_WORKER
    facts: dict[str, Fact] = {}


class Weighed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker that a step could have gone to, or could not."""

    worker: WorkerId
    chosen: bool = False
    barred: str = ""  # why it could not; empty: it could
    terms: dict[str, Fact] = {}  # what the choice was made by


class Cached(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What of a finished step's prompt was cached, against what was expected at its last Grant. In tokens."""

    prompt_tokens: int
    expected_tokens: int
    cached_tokens: int  # as its engine says
    missed_tokens: dict[MissCause, int] = {}  # as far as the leader knows the cause
    loss: Loss | None = None  # what a worker has to explain
    gap_s: float = -1.0  # since the session's last step ended, at the prompt's arrival; negative: unknown


class StepTold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step, as one leader remembers it."""

    step_id: StepId
    root: RootId
    session: SessionId
    tenant: TenantId
    pool: PoolId
    prompt_tokens: int
    heard_s: float  # ago: when the leader first heard of it
    over: bool
    moments: tuple[Moment, ...]
    weighed: tuple[Weighed, ...] = ()  # at its last Grant
    cached: Cached | None = None  # None: not finished
    tagged: bool = False  # it ran under a session tag


class WorkflowTold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A root workflow that is open, as admission knows it."""

    state: Literal["active", "queued", "dormant"]
    submitted_s: float  # ago
    sessions: int
    live_steps: int
    needs_tokens: int  # KV that it needs now
    bound: WorkerId  # where its steps go; empty: where placement likes
    moments: tuple[Moment, ...]  # since that leader first heard of it


class WhyAsk(Message, frozen=True, kw_only=True, gc=False):
    """To the leading admission and the leading placement, a request: what became of a step, or of a workflow's?"""

    step_id: StepId = StepId("")
    root: RootId = RootId("")  # with an empty step_id
    most: int = 32  # of a workflow's steps, the newest


class WhyTold(Message, frozen=True, kw_only=True, gc=False):
    """Answer to WhyAsk. No steps: it remembers none, and the rest says how far it remembers."""

    service: Literal["admission", "placement"]
    fence: int
    leading_s: float  # it has been leading for so long, and knows nothing from before
    remembered: int  # steps
    oldest_s: float  # ago: the oldest step that it remembers was first heard of
    steps: tuple[StepTold, ...] = ()  # oldest first
    more: bool = False  # of this workflow: older ones are left out
    workflow: WorkflowTold | None = None  # admission's, where the workflow is open


class WorkerTold(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One worker, as the leading placement sees it."""

    worker: WorkerId
    pool: PoolId
    engine_url: str
    standing: Standing
    reason: str = ""  # of a standing that is not `serving`
    seen_s: float = 0.0  # ago
    leases: int = 0  # steps that run or may start there
    waiting_steps: int = 0  # for a slot there
    homed_sessions: int = 0
    homed_tokens: int = 0
    resident_pages: int = 0
    expected_tokens: int = 0  # cached, of the steps that finished there lately
    cached_tokens: int = 0  # of those, as the engine said


class WorkersAsk(Message, frozen=True, kw_only=True, gc=False):
    """To the leading placement, a request: which workers are there, and how do they stand?"""

    after: WorkerId = NO_WORKER  # a page begins after this one


class WorkersTold(Message, frozen=True, kw_only=True, gc=False):
    """Answer to WorkersAsk: one page, in the order of ids."""

    workers: tuple[WorkerTold, ...]
    more: bool
    fence: int


class WorkerStands(Message, frozen=True, kw_only=True, gc=False):
    """Placement's leader to standbys and admission: from now on this worker is given steps, or is not."""

    worker_id: WorkerId
    epoch: int
    standing: Literal["serving", "probation", "quarantined"]
    reason: str = ""
    fence: int
