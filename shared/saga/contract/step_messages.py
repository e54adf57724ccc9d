"""A step on its way to a grant: gateway, admission and placement."""

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
from saga.contract.vocabulary import Message, RefusalReason, Tag, WaitCause


class StepReady(Message, frozen=True, kw_only=True, gc=False):
    """A step wants to run. Sent again every 250 ms until answered, and whenever a leader says hello."""

    step_id: StepId
    attempt: int  # 0 at first; one more after each engine that died under it
    gateway_id: GatewayId
    tenant: TenantId
    root: RootId
    session: SessionId
    parent: SessionId = SessionId("")  # the session that started this one; empty for the root's own
    pool: PoolId
    agent_class: str = ""  # digest of system prompt and tool set; empty when unknown
    prompt_tokens: int
    max_output_tokens: int  # upper bound, from the client or the context length
    page_tokens: int
    base_pages: int = 0  # pages of the session's chain that new_hashes extends
    base_tip: bytes = b""  # hash of the last of them; empty when base_pages is 0
    new_hashes: bytes = b""  # 8 bytes a page: of each hash_stride-th page after the base, full pages only
    hash_stride: int = 1
    deadline_s: float = 0.0  # from the workflow's submission; 0: none given
    final: bool = False  # the client says that this is the workflow's last step
    gap_s: float = -1.0  # since the session's last step ended, as this gateway saw it; negative: unknown
    waited_s: float = 0.0  # since this gateway accepted the request; grows with each sending
    at: float = 0.0
    node: str = ""  # of the workflow's declared graph, as the client names it
    pages_known: bool = True  # false: the gateway cannot tell its pages, and prompt_tokens is a guess


class Accepted(Message, frozen=True, kw_only=True, gc=False):
    """Answer to StepReady: the step is known and waits or runs."""

    step_id: StepId
    attempt: int
    fence: int  # of admission


class Refused(Message, frozen=True, kw_only=True, gc=False):
    """Answer to StepReady: the step will not run; the gateway tells the client when to try again."""

    step_id: StepId
    attempt: int
    fence: int
    reason: RefusalReason
    detail: str  # for the client: which limit, and what it is
    retry_after_s: float


class StepRefused(Message, frozen=True, kw_only=True, gc=False):
    """The same after Accepted: the step waited in vain."""

    step_id: StepId
    attempt: int
    fence: int
    reason: RefusalReason
    detail: str
    retry_after_s: float


class StepAdmitted(Message, frozen=True, kw_only=True, gc=False):
    """The step's workflow is active: start it when a slot frees, in the order of tags."""

    step: StepReady
    tag: Tag
    home: WorkerId = NO_WORKER  # where the session ran last, as admission remembers
    waited: WaitCause = "none"  # why it waited in admission, if it did
    fence: int  # of admission
    output_claim_tokens: int = 0  # KV to set aside for its answer; 0: admission has not said
    new_session: bool = False  # admission remembers no step of it
    fits: tuple[WorkerId, ...] = ()  # of a session without a home: where admission sees room for it; empty: at `home`


class Grant(Message, frozen=True, kw_only=True, gc=False):
    """A reservation: run this step there, now. The gateway takes the first and returns any other."""

    step_id: StepId
    attempt: int
    lease_id: LeaseId
    root: RootId
    session: SessionId
    worker_id: WorkerId
    engine_url: str
    session_tag: SessionTag  # empty: this engine keeps no session tags
    priority: int = 0
    cached_tokens: int  # of the prompt, resident there as placement believes
    reason: str = ""  # why this worker, in a word of placement's policy
    cost_s: float = 0.0  # modelled engine-seconds with these cached tokens
    waited: WaitCause = "none"
    ttl_s: float  # untaken, it dies after this; taken, unless renewed within lease_ttl_s
    lease_ttl_s: float
    moved_from: WorkerId = NO_WORKER  # the old home, when this is another
    admission_fence: int
    fence: int  # of placement
    new_session: bool = False  # nobody remembers a step of it
    ran_at: WorkerId = NO_WORKER  # the worker of the session's last step; empty: not known
    left_tokens: int = -1  # of the prompt, resident there, when this is another; negative: not known
    left_gone: bool = False  # it is another, and nothing can start there
    superseded_tokens: int = 0  # of the prompt: it goes back to what the session had left, and what was let go then


class NeedChain(Message, frozen=True, kw_only=True, gc=False):
    """Placement lacks the base of a session's page chain: send the whole."""

    step_id: StepId
    attempt: int
    session: SessionId
    fence: int


class StepChain(Message, frozen=True, kw_only=True, gc=False):
    """Answer to NeedChain: the session's page chain from its first page."""

    step_id: StepId
    session: SessionId
    hashes: bytes  # 8 bytes a page, of each hash_stride-th page
    hash_stride: int = 1
