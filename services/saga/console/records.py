"""What the console remembers of a workflow, its sessions and its steps: enough to draw it, bounded."""

from collections import deque
from typing import Final

from saga.console.wire import NEVER, StepPhase, StepRow, WorkflowRow, WorkflowState
from saga.contract.ids import NO_WORKER, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast

STEPS_KEPT: Final = 32  # of a workflow, the newest
SESSIONS_KEPT: Final = 64  # the same
TOOLS_TOLD: Final = 4
NAME_CHARS: Final = 48  # of a tool
NO_SESSION: Final = SessionId("")


class Session:
    """One conversation of a workflow."""

    __slots__ = (
        "away_p50_s",
        "dormant_s",
        "foretold",
        "home",
        "kept",
        "live",
        "number",
        "parent",
        "remaining_s",
        "running",
        "since_s",
        "tokens",
    )

    def __init__(self, number: int, parent: SessionId) -> None:
        self.number = number
        self.parent = parent
        self.home: WorkerId = NO_WORKER
        self.tokens = 0  # its context
        self.kept = False  # nobody has let its KV go since its last step
        self.live = 0  # steps
        self.running = 0  # of them, at an engine
        self.since_s = 0.0  # its last step's end
        self.away_p50_s = NEVER  # forecast of its gap
        self.dormant_s = 0.0  # when it has been away for too long, or was let go
        self.remaining_s = 0.0
        self.foretold: Forecast | None = None  # the last


class Step:
    """One step, live or over."""

    __slots__ = (
        "attempt",
        "cached_tokens",
        "cause",
        "end_s",
        "first_token_s",
        "moved_from",
        "named_s",
        "number",
        "output_tokens",
        "phase",
        "prompt_tokens",
        "ready_s",
        "reason",
        "session",
        "start_s",
        "step_id",
        "tools",
        "worker",
        "workflow",
    )

    def __init__(self, step_id: StepId, number: int, workflow: "Workflow", session: SessionId, ready_s: float) -> None:
        self.step_id = step_id
        self.number = number
        self.workflow = workflow
        self.session = session
        self.attempt = 0
        self.phase: StepPhase = "waiting"
        self.ready_s = ready_s
        self.named_s = ready_s  # somebody spoke of it
        self.start_s = NEVER
        self.first_token_s = NEVER
        self.end_s = NEVER
        self.worker: str = ""
        self.cause = "none"
        self.reason = ""
        self.moved_from: str = ""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.tools: tuple[str, ...] = ()

    def row(self) -> StepRow:
        """As the page is told."""
        session = self.workflow.sessions.get(self.session)
        return StepRow(
            self.workflow.number,
            self.number,
            session.number if session is not None else 0,
            self.phase,
            round(self.ready_s, 3),
            round(self.start_s, 3),
            round(self.first_token_s, 3),
            round(self.end_s, 3),
            self.worker,
            self.cause,
            self.reason,
            self.moved_from,
            self.prompt_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.tools,
        )


class Workflow:
    """One root workflow."""

    __slots__ = (
        "agent_class",
        "cached_tokens",
        "deadline_s",
        "ended",
        "engine_s",
        "last_s",
        "live",
        "number",
        "output_tokens",
        "prompt_tokens",
        "root",
        "sessions",
        "steps",
        "steps_ended",
        "submitted_s",
        "tenant",
        "told",
    )

    def __init__(self, root: RootId, tenant: TenantId, number: int, submitted_s: float) -> None:
        self.root = root
        self.tenant = tenant
        self.number = number
        self.submitted_s = submitted_s
        self.deadline_s = 0.0
        self.agent_class = ""
        self.last_s = submitted_s
        self.ended = False
        self.sessions: dict[SessionId, Session] = {}
        self.live: dict[StepId, Step] = {}
        self.steps: deque[Step] = deque(maxlen=STEPS_KEPT)  # those that ended
        self.steps_ended = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.engine_s = 0.0
        self.told: WorkflowState = "running"  # the state last told, to notice a change that only time brings

    def session(self, session_id: SessionId, parent: SessionId = NO_SESSION) -> Session:
        """The session, perhaps a new one; of too many the longest silent ones are forgotten."""
        session = self.sessions.get(session_id)
        if session is None:
            if len(self.sessions) >= SESSIONS_KEPT:
                away = [(s.since_s, name) for name, s in self.sessions.items() if not s.live]
                if away:  # else all have live steps, which are bounded themselves
                    del self.sessions[min(away)[1]]
            number = max((s.number for s in self.sessions.values()), default=-1) + 1
            session = self.sessions[session_id] = Session(number, parent)
        return session

    def state(self, now_s: float) -> WorkflowState:
        """In the words of the glossary, active told apart in running and gap."""
        if self.live:
            waits = all(step.phase == "waiting" for step in self.live.values())
            return "queued" if waits else "running"
        if self.ended:
            return "closed"
        here = any(session.dormant_s > now_s for session in self.sessions.values())
        return "gap" if here else "dormant"

    def context_tokens(self) -> int:
        """Of all its sessions that still claim their KV."""
        return sum(session.tokens for session in self.sessions.values() if session.kept or session.running)

    def remaining_s(self) -> float:
        """Modelled engine-seconds to come, of all its sessions."""
        return sum(session.remaining_s for session in self.sessions.values())

    def back_s(self, now_s: float) -> float:
        """When the next step is expected; NEVER when one is here, or none is expected soon."""
        if self.live or self.ended:
            return NEVER
        due = [s.since_s + s.away_p50_s for s in self.sessions.values() if s.away_p50_s >= 0 and s.dormant_s > now_s]
        return min(due, default=NEVER)

    def kv(self) -> tuple[str | int, ...]:
        """Its KV by worker."""
        if len(self.sessions) == 1:
            for session in self.sessions.values():
                if session.home and (session.kept or session.running):
                    return (session.home, session.tokens, 1 if session.running else 0)
            return ()
        held: dict[str, list[int]] = {}
        for session in self.sessions.values():
            if session.home and (session.kept or session.running):
                here = held.setdefault(session.home, [0, 0])
                here[0] += session.tokens
                here[1] |= 1 if session.running else 0
        return tuple(part for worker, (tokens, runs) in held.items() for part in (worker, tokens, runs))

    def row(self, now_s: float) -> WorkflowRow:
        """As the page is told."""
        self.told = self.state(now_s)
        return WorkflowRow(
            self.number,
            self.root,
            self.tenant,
            self.told,
            self.agent_class,
            round(self.submitted_s, 3),
            self.deadline_s,
            round(self.last_s, 3),
            self.steps_ended,
            len(self.sessions),
            self.prompt_tokens,
            self.cached_tokens,
            self.output_tokens,
            round(self.engine_s, 2),
            round(self.remaining_s(), 2),
            round(self.back_s(now_s), 2),
            self.kv(),
        )
