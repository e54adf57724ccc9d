"""What the page is told, as JSON. Rows are arrays, in the order of their fields; `page/wire.js` names the same fields.

A row always says everything of its thing, so that a frame heard twice, or after a newer snapshot, does no harm. Times
are seconds since this console's start, negative before it; durations are seconds.
"""

from typing import Final, Literal

import msgspec

WorkflowState = Literal["running", "gap", "queued", "dormant", "closed"]
StepPhase = Literal["waiting", "queued", "running", "finished", "cancelled", "failed"]
DecisionKind = Literal[
    "placed",
    "moved",
    "waited",
    "paused",
    "released",
    "superseded",
    "refused",
    "restarted",
    "failed",
    "worker",
    "leader",
]
NEVER: Final = -1.0


class WorkerRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One worker, as its last heartbeat said."""

    id: str
    pool: str
    engine_url: str
    up: bool  # heard within 3 s, and its engine answers
    standing: str  # serving, draining, or what placement thinks of it: probation, quarantined
    kv_tokens: int  # capacity
    used_tokens: int  # by running requests, as the engine says
    running: int  # its batch
    waiting: int  # in the engine's own queue
    max_running: int
    open_session_tags: int
    epoch: int
    speed: float


class WorkflowRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One workflow."""

    number: int  # of this console's; step rows name it
    root: str
    tenant: str
    state: WorkflowState
    agent_class: str  # of the session seen first
    submitted_s: float
    deadline_s: float  # after submission; 0: none
    last_s: float  # sign of life
    steps: int  # ended ones that this console has seen
    sessions: int
    prompt_tokens: int  # of those steps, and of them
    cached_tokens: int
    output_tokens: int
    engine_s: float  # modelled, of the same
    remaining_s: float  # modelled engine-seconds to come, as forecast; 0: not known
    back_s: float  # when the next step is expected: median of the forecast; NEVER: none is
    kv: tuple[str | int, ...]  # worker, tokens, 1 if a step runs there: again and again


class StepRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One step."""

    workflow: int
    number: int
    session: int  # of its workflow, in the order of their first steps
    phase: StepPhase
    ready_s: float
    start_s: float  # granted; NEVER: not yet
    first_token_s: float  # after its start; NEVER: not known
    end_s: float  # NEVER: not yet
    worker: str  # where it runs, or for whose slot it waits
    cause: str  # why it waited
    reason: str  # why this worker, in a word of placement's policy
    moved_from: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tools: tuple[str, ...]


class DecisionRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One decision worth a line."""

    number: int
    at_s: float
    kind: DecisionKind
    workflow: int  # -1: of none
    name: str  # of the workflow, else of what it is about
    worker: str
    other: str  # the worker before; for a leader its service
    reason: str
    amount: float  # seconds waited, sessions let go, tokens superseded: by kind


class TenantRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One tenant, over the last minute where it is a rate."""

    name: str
    weight: float
    share: float  # of the modelled engine-seconds of all
    entitled: float  # weight over the weights of those that want something; 0: it wants nothing
    active: int  # workflows
    queued: int
    running_steps: int
    waiting_steps: int
    kv_tokens: int
    held_for: str  # the quota that its next step waits for
    on_time: int  # open workflows with a deadline: no reason to worry
    at_risk: int  # more work is forecast than time is left
    late: int


class Totals(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The cell in a line."""

    workers: int = 0
    workers_up: int = 0
    kv_tokens: int = 0
    context_tokens: int = 0  # of workflows that run, wait or are in a gap
    running: int = 0  # workflows
    gap: int = 0
    queued: int = 0
    dormant: int = 0
    left_out: int = 0  # workflows that were more than are shown
    steps_per_s: float = 0.0  # over 10 s
    output_tokens_per_s: float = 0.0  # the same
    cached_share: float = -1.0  # of prompt tokens, over a minute; negative: no step ended
    tenants: int = 0  # known; the rows are of the busiest
    grants: dict[str, int] = {}  # of the last minute, by reason
    waits: dict[str, int] = {}  # the same, by cause


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What has changed, or with `whole` everything there is."""

    now_s: float
    whole: bool = False
    cell: str = ""
    at: float = 0.0  # wall time of now_s, only with the whole
    workers: tuple[WorkerRow, ...] = ()
    workers_gone: tuple[str, ...] = ()
    workflows: tuple[WorkflowRow, ...] = ()
    workflows_gone: tuple[int, ...] = ()
    steps: tuple[StepRow, ...] = ()
    decisions: tuple[DecisionRow, ...] = ()
    decisions_left_out: int = 0  # more were made than a frame holds
    tenants: tuple[TenantRow, ...] | None = None
    totals: Totals | None = None
