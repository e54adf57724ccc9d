"""What admission remembers of a workflow, its sessions and its steps. Plain data with a few questions."""

from collections.abc import Container
from math import isfinite

import msgspec

from saga.admission.charge import Charge
from saga.admission.needs import NO_GROWTH, Tokens, plus
from saga.contract.ids import NO_WORKER, GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import StepReady, Tag, WaitCause
from saga.contract.unreadable import UNREADABLE
from saga.kernel.steps import StepLife, StepState

MAX_SESSIONS = 1_000  # of a workflow; when there are more, those away for longest are forgotten


class Session(msgspec.Struct, gc=False):
    """One conversation of a workflow."""

    session: SessionId
    parent: SessionId
    home: WorkerId = NO_WORKER
    context_tokens: int = 0  # prompt and output of its last step
    shared_tokens: int = 0  # of it, found in cache when it began: somebody else has them, too
    live_steps: int = 0
    growth_tokens: Tokens = NO_GROWTH  # forecast change of its context, by horizon
    ended_s: float | None = None  # when its last step did, monotonic; None: none has that this leader has seen
    dormant_at_s: float = 0.0  # when its gap becomes longer than nine in ten; monotonic
    remaining_engine_s: float = 0.0  # forecast work of its steps to come
    taken: str = ""  # since its last step, its KV: by which of our doings, a cause of `overheads.py`
    over: bool = False  # its client says so
    answered: bool = False  # its last step called no tool


class Workflow:
    """One root workflow: an agent task with all its sub-agents."""

    __slots__ = (
        "active",
        "agent_class",
        "bound",
        "deadline_s",
        "final",
        "foretold",
        "last_sign_s",
        "newcomer_shared",
        "pool",
        "remaining_engine_s",
        "root",
        "served_s",
        "sessions",
        "steps",
        "submitted_s",
        "taken_in",
        "tenant",
        "unseen",
    )

    def __init__(self, step: StepReady, submitted_s: float) -> None:
        self.root: RootId = step.root
        self.tenant: TenantId = step.tenant
        self.pool: PoolId = step.pool
        self.agent_class = step.agent_class  # of the session that began it
        self.submitted_s = submitted_s  # monotonic
        self.deadline_s = step.deadline_s  # after submission; 0: none
        self.active = False
        self.final = False
        self.foretold = False  # a forecast has come
        self.newcomer_shared = 0  # what a session that begins is expected to find in cache
        self.served_s = 0.0  # modelled engine-seconds
        self.taken_in: tuple[float, float] | None = None  # seconds and work that `expectations.py` has learnt of it
        self.remaining_engine_s = 0.0  # forecast, of all its sessions; of newcomers in general while none has come
        self.bound: WorkerId = NO_WORKER  # where its steps go, by choice of a policy that binds workflows to workers
        self.last_sign_s = submitted_s
        self.unseen = False  # known from the table alone: this leader has heard of no step of it
        self.sessions: dict[SessionId, Session] = {}
        self.steps: dict[StepId, Step] = {}

    @classmethod
    def restored(cls, saved: "SavedWorkflow", submitted_s: float, now_s: float) -> "Workflow":
        """The workflow behind a row of the table. Its gaps count from now: nobody knows when its steps ended."""
        workflow = cls.__new__(cls)
        workflow.root, workflow.tenant, workflow.pool = saved.root, saved.tenant, saved.pool
        workflow.submitted_s, workflow.deadline_s = submitted_s, saved.deadline_s
        workflow.active = workflow.final = workflow.foretold = False
        workflow.served_s, workflow.remaining_engine_s = saved.served_s, 0.0
        workflow.agent_class, workflow.bound = "", NO_WORKER
        workflow.newcomer_shared = 0
        workflow.last_sign_s = now_s
        workflow.taken_in = None
        workflow.unseen = True
        workflow.steps = {}
        workflow.sessions = {s.session: Session(s.session, s.parent, s.home, s.context_tokens) for s in saved.sessions}
        return workflow

    @property
    def age_key(self) -> tuple[float, RootId]:
        """Orders workflows, oldest first."""
        return (self.submitted_s, self.root)

    def running(self) -> bool:
        """Whether a step is past waiting, so that the workflow cannot be paused now."""
        return any(step.life.state is not StepState.WAITING for step in self.steps.values())

    def kv_home(self, workers: Container[WorkerId]) -> WorkerId:
        """Of these workers, the one that holds most of its KV, or did; NO_WORKER: none of it."""
        homes: dict[WorkerId, int] = {}
        for session in self.sessions.values():
            if session.home in workers:
                homes[session.home] = homes.get(session.home, 0) + session.context_tokens
        if len(homes) < 2:
            return next(iter(homes), NO_WORKER)
        for step in self.steps.values():
            home = self.sessions[step.step.session].home
            if home in homes:
                homes[home] += step.claim_tokens
        return min(homes, key=lambda worker_id: (-homes[worker_id], worker_id))

    def forget_sessions(self, now_s: float) -> None:
        """Before one more than MAX_SESSIONS, half of them, if they are away; a client may open any number."""
        if len(self.sessions) < MAX_SESSIONS:
            return
        away = [s for s in self.sessions.values() if not s.live_steps and s.dormant_at_s <= now_s]
        for session in sorted(away, key=lambda s: (s.dormant_at_s, s.session))[: MAX_SESSIONS // 2]:
            del self.sessions[session.session]

    def dormant(self, now_s: float) -> bool:
        """No step, and every session's gap is longer than nine in ten."""
        return not self.steps and all(s.dormant_at_s <= now_s for s in self.sessions.values())

    def seems_over(self, now_s: float) -> bool:
        """Dormant, and the last answer of each session called no tool. A guess: humans come back from longer gaps."""
        return self.dormant(now_s) and all(session.answered for session in self.sessions.values())

    def claim_tokens(self, now_s: float) -> int:
        """KV that the workflow needs: contexts of its live sessions and of those in a gap that is not over, but for
        what they found in cache when they began: those who were there have that, too, and it is there once.

        A parent that waits for its children has no claim: its KV yields first.
        """
        waited_for = {s.parent for s in self.sessions.values() if s.live_steps and s.parent}
        tokens = sum(
            max(0, s.context_tokens - s.shared_tokens)
            for s in self.sessions.values()
            if not s.live_steps and s.dormant_at_s > now_s and s.session not in waited_for
        )
        return tokens + sum(step.claim_tokens - self.shared_tokens(step) for step in self.steps.values())

    def shared_tokens(self, step: "Step") -> int:
        """Of what the step claims, what others have, too."""
        session = self.sessions.get(step.step.session)
        shared = self.newcomer_shared if session is None or not session.context_tokens else session.shared_tokens
        return min(shared, step.step.prompt_tokens)

    def needs_tokens(self, now_s: float) -> Tokens:
        """KV that it needs now, and is forecast to need, by horizon."""
        claim_tokens = self.claim_tokens(now_s)
        needs = (claim_tokens,) * len(NO_GROWTH)
        for session in self.sessions.values():
            needs = plus(needs, session.growth_tokens)
        return (claim_tokens, *(max(0, tokens) for tokens in needs[1:]))


class Step:
    """One step that is not over."""

    __slots__ = (
        "charge",
        "held",
        "life",
        "moved_from",
        "named_s",
        "output_claim_tokens",
        "output_tokens",
        "paid_tokens",
        "since_s",
        "step",
        "tag",
        "wait_cause",
    )

    def __init__(self, step: StepReady, now_s: float, output_claim_tokens: int = 0) -> None:
        self.step = step
        self.life = StepLife(step.step_id)
        self.named_s = now_s
        self.since_s = now_s - step.waited_s
        self.tag: Tag | None = None
        self.charge: Charge | None = None  # in its tenant's fair queue, whatever the tag says
        self.paid_tokens = 0  # of its prompt, whose prefill its tenant is charged
        self.moved_from: WorkerId = NO_WORKER  # its session's home before the Grant, if that gave it another
        self.output_claim_tokens = output_claim_tokens  # KV set aside for its answer
        self.output_tokens = 0
        self.held = False  # its session came back while it had a claim to its KV
        self.wait_cause: WaitCause = "none"

    @property
    def charged_s(self) -> float:
        """To its tenant so far: modelled engine-seconds."""
        return self.charge.cost_s if self.charge is not None else 0.0

    @property
    def claim_tokens(self) -> int:
        """KV it needs while it runs."""
        return self.step.prompt_tokens + self.output_claim_tokens

    @property
    def gateway_id(self) -> GatewayId:
        return self.step.gateway_id


class SavedSession(msgspec.Struct, frozen=True, gc=False):
    """A session in the workflow table of JetStream KV."""

    session: SessionId
    parent: SessionId
    home: WorkerId
    context_tokens: int


class SavedWorkflow(msgspec.Struct, frozen=True, gc=False):
    """A workflow in the table: what a new leader must know that nobody else can tell it."""

    root: RootId
    tenant: TenantId
    pool: PoolId
    submitted_at: float  # wall clock: monotonic clocks of two machines do not compare
    deadline_s: float
    served_s: float
    sessions: tuple[SavedSession, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SavedWorkflow)


def save(workflow: Workflow, wall_offset_s: float) -> bytes:
    """The workflow's row. `wall_offset_s`: wall clock less monotonic."""
    sessions = tuple(SavedSession(s.session, s.parent, s.home, s.context_tokens) for s in workflow.sessions.values())
    row = SavedWorkflow(
        root=workflow.root,
        tenant=workflow.tenant,
        pool=workflow.pool,
        submitted_at=workflow.submitted_s + wall_offset_s,
        deadline_s=workflow.deadline_s,
        served_s=workflow.served_s,
        sessions=sessions,
    )
    return _encoder.encode(row)


def load(row: bytes) -> SavedWorkflow | None:
    """The row behind these bytes; None for anything else, which must not keep a new leader from leading."""
    try:
        saved = _decoder.decode(row)
    except UNREADABLE:
        return None
    return saved if all(map(isfinite, (saved.submitted_at, saved.deadline_s, saved.served_s))) else None
