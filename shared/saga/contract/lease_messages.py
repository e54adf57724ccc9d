"""A step under a lease: what its gateway tells all who follow it."""

import msgspec

from saga.contract.ids import (
    NO_WORKER,
    GatewayId,
    LeaseId,
    PoolId,
    RootId,
    SessionId,
    SessionTag,
    StepId,
    TenantId,
    WorkerId,
)
from saga.contract.step_messages import StepReady
from saga.contract.vocabulary import FinishReason, Message, ReturnReason


class LeaseTaken(Message, frozen=True, kw_only=True, gc=False):
    """The gateway runs the step under this lease."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    gateway_id: GatewayId
    tenant: TenantId
    root: RootId
    session: SessionId
    session_tag: SessionTag
    lease_ttl_s: float
    moved_from: WorkerId = NO_WORKER
    prompt_tokens: int = 0  # that its session's tag will cover; 0: an older gateway
    pages_known: bool = True  # false: the worker is to tell placement which pages the session's tag stores


class LeaseReturned(Message, frozen=True, kw_only=True, gc=False):
    """The gateway will not run, or no longer runs, under this lease. After engine_died the step wants another."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    gateway_id: GatewayId
    reason: ReturnReason
    next_attempt: int = 0  # for engine_died: the attempt that waits now


class LeaseReleased(Message, frozen=True, kw_only=True, gc=False):
    """The worker agent ended a lease that nobody renewed, and aborted its request."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId


class StepStarted(Message, frozen=True, kw_only=True, gc=False):
    """The request is on its way to the engine."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    at: float = 0.0
    session: SessionId = SessionId("")  # with its tag, for a worker agent that missed LeaseTaken
    session_tag: SessionTag = SessionTag("")


class StepProgress(Message, frozen=True, kw_only=True, gc=False):
    """First token, then every 2 s. Renews the lease."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    output_tokens: int


class StepFinished(Message, frozen=True, kw_only=True, gc=False):
    """The step's answer is complete. Durable; told apart by (step_id, attempt)."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    gateway_id: GatewayId
    tenant: TenantId
    root: RootId
    session: SessionId
    parent: SessionId = SessionId("")
    pool: PoolId
    agent_class: str = ""
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int  # of the prompt, as the engine reports
    finish_reason: FinishReason
    tools: tuple[str, ...] = ()  # names of the tools called
    final: bool = False
    gap_s: float = -1.0  # before this step; negative: unknown
    waited_s: float = 0.0  # request read to first byte written to the engine
    first_token_s: float = 0.0  # request written to first token back
    engine_s: float = 0.0  # request written to last token back
    attempts: int = 1
    at: float = 0.0
    node: str = ""  # of the workflow's declared graph
    modelled_s: float = -1.0  # its marginal engine-seconds by the worker's CostModel; negative: unknown


class StepCancelled(Message, frozen=True, kw_only=True, gc=False):
    """The step will not finish: its client left or it failed for good. Durable, idempotent, also after a Grant."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId = LeaseId("")  # empty: none was taken
    worker_id: WorkerId = NO_WORKER
    gateway_id: GatewayId
    tenant: TenantId
    root: RootId
    session: SessionId
    output_tokens: int = 0
    failed: bool = False  # true: an error; false: the client left
    at: float = 0.0


class RunningLease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease that its gateway still holds."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    worker_id: WorkerId
    output_tokens: int = 0


class WaitingStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A step that its gateway still wants run."""

    step_id: StepId
    attempt: int
    waited_s: float  # since the request was read, or since its engine died


class GatewayBeat(Message, frozen=True, kw_only=True, gc=False):
    """Once a second: what waits and runs through this gateway. A step not named for 5 s is aborted.

    Paged when long; the parts of one beat name different steps, so each part stands alone.
    """

    gateway_id: GatewayId
    waiting: tuple[WaitingStep, ...] = ()
    running: tuple[RunningLease, ...] = ()


class LeasesRenewed(Message, frozen=True, kw_only=True, gc=False):
    """Once a second, to each worker agent: the leases there that the gateway holds."""

    gateway_id: GatewayId
    worker_id: WorkerId
    lease_ids: tuple[LeaseId, ...]


class StepClaim(Message, frozen=True, kw_only=True, gc=False):
    """To a new leader: this step runs already, under this lease."""

    step: StepReady
    lease_id: LeaseId
    worker_id: WorkerId
    session_tag: SessionTag
    output_tokens: int = 0
