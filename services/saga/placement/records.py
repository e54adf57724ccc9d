"""What placement remembers of a worker, a lease, a step and a session. Plain data with a few questions."""

import msgspec

from saga.contract.ids import LeaseId, SessionId, StepId, WorkerId
from saga.contract.messages import StepAdmitted, WaitCause, WorkerHello
from saga.kernel.steps import StepLife
from saga.placement.candidate import Candidate
from saga.placement.pricing import Price
from saga.placement.supersession import Tagged

STICKY_STEPS = 10  # of a session: after a move it stays for so many
OUTPUT_CLAIM_TOKENS = 1_024  # KV set aside for an answer of which admission has not said how much


class Lease(msgspec.Struct, gc=False):
    """A reservation on one worker, from its grant until it is freed."""

    lease_id: LeaseId
    step_id: StepId
    worker_id: WorkerId
    tokens: int  # of KV set aside
    engine_s: float  # modelled work
    expires_s: float  # monotonic; pushed back by each renewal
    taken: bool = False
    priority: int = 0  # in its engine's queue
    output_tokens: int = 0  # generated, as last heard
    first_page: bytes = b""  # of its prompt's chain, when that is at hand


class Worker:
    """One engine as placement sees it."""

    __slots__ = (
        "draining",
        "healthy",
        "hello",
        "homed_sessions",
        "homed_tokens",
        "leased_engine_s",
        "leased_tokens",
        "leases",
        "left",
        "on_probation",
        "plain",
        "quarantined",
        "queued_engine_s",
        "seen_s",
        "suspect_until_s",
        "waited_for_s",
    )

    def __init__(self, hello: WorkerHello, now_s: float) -> None:
        self.hello = hello
        self.healthy = True
        self.left = False  # it has said goodbye since it was heard last
        self.draining = False  # an operator wants it empty
        self.quarantined = False  # its word is not believed, see `trust.py`
        self.on_probation = False  # one step at a time
        self.seen_s = now_s
        self.suspect_until_s = 0.0  # a gateway could not reach it; believe its heartbeats after this only
        self.leases: dict[LeaseId, Lease] = {}
        self.plain: Candidate | None = None  # as policies see it for a step of which it holds nothing; None: changed
        self.leased_tokens = 0
        self.leased_engine_s = 0.0  # modelled work under these leases
        self.homed_tokens = 0  # context of the sessions at home here
        self.homed_sessions = 0
        self.queued_engine_s = 0.0  # modelled work that waits for a slot here
        self.waited_for_s = now_s  # when steps last waited here, as stealing saw it

    def usable(self, now_s: float) -> bool:
        """Whether a step may start here."""
        barred = self.draining or self.quarantined or (self.on_probation and bool(self.leases))
        return self.healthy and now_s >= self.suspect_until_s and not barred

    def hold(self, lease: Lease) -> None:
        """A slot here is reserved."""
        self.plain = None
        self.leases[lease.lease_id] = lease
        self.leased_tokens += lease.tokens
        self.leased_engine_s += lease.engine_s

    def free(self, lease: Lease) -> None:
        """The slot is free again; nothing happens when it was."""
        self.plain = None
        if self.leases.pop(lease.lease_id, None) is not None:
            self.leased_tokens -= lease.tokens
            self.leased_engine_s = self.leased_engine_s - lease.engine_s if self.leases else 0.0

    def room_for(self, tokens: int, lookahead: int) -> bool:
        """Whether the engine could start one more step now, plus the look-ahead that hides the round trip."""
        if not self.leases:
            return True  # a step larger than the pool itself is refused elsewhere
        fits = self.leased_tokens + tokens <= self.hello.kv_tokens
        return fits and len(self.leases) < self.hello.max_running + lookahead


class Step:
    """One admitted step that is not over."""

    __slots__ = (
        "admitted",
        "attempt",
        "chain",
        "engine_s",
        "lease",
        "life",
        "named_s",
        "prices",
        "queued_at",
        "wait_cause",
    )

    def __init__(self, admitted: StepAdmitted, life: StepLife, now_s: float) -> None:
        self.admitted = admitted
        self.life = life
        self.attempt = admitted.step.attempt
        self.chain: bytes | None = None  # page hashes of its prompt; None: not at hand, or with a stride
        self.named_s = now_s
        self.lease: Lease | None = None
        self.engine_s = 0.0  # modelled work, as estimated when it was queued
        self.queued_at: WorkerId | None = None  # whose queue it is in; "" is its pool's
        self.wait_cause: WaitCause = admitted.waited
        self.prices: tuple[Price, ...] = ()  # of the last choice, the chosen worker first; none: nobody was asked

    @property
    def tokens(self) -> int:
        """KV to set aside for it."""
        step = self.admitted.step
        output_tokens = self.admitted.output_claim_tokens or min(step.max_output_tokens, OUTPUT_CLAIM_TOKENS)
        return step.prompt_tokens + output_tokens


class Session:
    """Where a session is at home, the page chain of its last prompt, and what its tag pins."""

    __slots__ = (
        "answered",
        "context_tokens",
        "hashes",
        "home",
        "kept",
        "kept_in",
        "moved_at",
        "ran_at",
        "root",
        "session",
        "steps",
        "stride",
        "tagged",
    )

    def __init__(self, session: SessionId, root: str) -> None:
        self.session = session
        self.root = root
        self.hashes = b""
        self.stride = 1
        self.home: WorkerId = WorkerId("")
        self.context_tokens = 0
        self.kept_in = ""  # the shared tier that its last step's worker writes to
        self.kept = b""  # page hashes of that step's prompt
        self.ran_at: WorkerId = WorkerId("")  # its last step
        self.steps = 0  # granted
        self.moved_at = -STICKY_STEPS  # of them, when it was last stolen
        self.answered: dict[SessionId, None] = {}  # its sub-agents that ended with an answer, not with a tool call
        self.tagged: Tagged | None = None  # None: this leader has granted none of its steps yet

    def keeps(self, tier: str) -> None:
        """Its last step's worker writes to this shared tier; empty: to none."""
        self.kept_in, self.kept = (tier, self.hashes) if tier and self.stride == 1 else ("", b"")

    def extend(self, base_pages: int, base_tip: bytes, new_hashes: bytes, stride: int) -> bool:
        """Take over a step's chain. False when its base is not what is known here: ask for the whole."""
        if base_pages == 0:
            self.hashes, self.stride = new_hashes, stride
            return True
        end = 8 * base_pages
        if stride != 1 or self.stride != 1 or len(self.hashes) < end or self.hashes[end - 8 : end] != base_tip:
            return False
        self.hashes = self.hashes[:end] + new_hashes
        return True
