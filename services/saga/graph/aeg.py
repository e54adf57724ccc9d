"""The agent execution graph of one live workflow: its steps, what they called, and what led from one to the next. Pure.

Nodes are steps, edges lead from a step to the next of its session or to the first of a session it started, with the
gap between. Bounded: of a long workflow the oldest nodes go. Learning across workflows is `learning`'s business.
A process follows a hundred thousand of these, so that what is not needed often is packed.
"""

from itertools import islice
from struct import Struct as Packing
from typing import Final, Literal

import msgspec

from saga.contract.ids import RootId, SessionId, StepId, TenantId
from saga.contract.messages import StepFinished
from saga.graph.bounds import MAX_TOKENS
from saga.graph.situation import NO_TOOL, UNKNOWN, context_of, paced

MAX_NODES: Final = 512
MAX_SESSIONS: Final = 256
NO_STEP: Final = StepId("")
NO_SESSION: Final = SessionId("")
EdgeKind = Literal["next", "spawn"]
_NUMBERS: Final = Packing("<ffII")


class Node(msgspec.Struct, frozen=True, gc=False):
    """One step that ended, and the edge that led to it."""

    session: SessionId
    tool: str
    source: StepId  # where the edge comes from; empty: there is none
    kind: EdgeKind
    numbers: bytes

    def measured(self) -> tuple[float, float, int, int]:
        """(gap_s from the source's end to this step, negative: unknown; engine_s; prompt tokens; output tokens)."""
        gap_s, engine_s, prompt_tokens, output_tokens = _NUMBERS.unpack(self.numbers)
        return gap_s, engine_s, prompt_tokens, output_tokens


class Session(msgspec.Struct, gc=False):
    """Where one conversation stands."""

    name: SessionId
    agent_class: str
    parent: SessionId
    number: int = 0  # among all sessions
    steps: int = 0
    tool: str = ""  # called by the last step
    last_step: StepId = NO_STEP
    prompt_tokens: int = 0  # of the last step
    ended_s: float = -1.0  # when the last step ended, on our clock; negative: known from a replay only
    ready_step: StepId = NO_STEP  # the step after it, once seen: its gap is learnt
    ready_gap_s: float = -1.0
    counted_end: int = 0  # the step, called no tool, that is taken for its end; 0: none
    tool_pace: float = UNKNOWN  # of late, of gaps in which a tool ran
    human_pace: float = UNKNOWN  # and of the others

    @property
    def context(self) -> int:
        """What is told of its next gap, besides the tool."""
        pace = self.tool_pace if self.tool != NO_TOOL else self.human_pace
        return context_of(pace, sub_agent=self.parent != NO_SESSION)

    def back(self, step_id: StepId, gap_s: float) -> None:
        """Its next step is here. Negative gap: unknown."""
        self.ready_step, self.ready_gap_s = step_id, gap_s
        if gap_s < 0:
            return
        if self.tool != NO_TOOL:
            self.tool_pace = paced(self.tool_pace, gap_s)
        else:
            self.human_pace = paced(self.human_pace, gap_s)

    def stepped(self, step_id: StepId, tool: str, prompt_tokens: int, ended_s: float) -> None:
        """That step is over."""
        self.steps += 1
        self.last_step, self.tool, self.prompt_tokens = step_id, tool, prompt_tokens
        self.ended_s = ended_s
        self.ready_gap_s = -1.0


class Aeg:
    """One workflow."""

    __slots__ = ("nodes", "root", "seen_s", "sessions", "steps", "tenant")

    def __init__(self, root: RootId, tenant: TenantId, now_s: float) -> None:
        self.root = root
        self.tenant = tenant
        self.seen_s = now_s  # last sign of life
        self.steps = 0  # ever
        self.sessions: dict[SessionId, Session] = {}  # longest unseen first
        self.nodes: dict[StepId, Node] = {}  # oldest first

    def session(self, name: SessionId, agent_class: str = "", parent: SessionId = NO_SESSION) -> Session:
        """The session of that name, made when new; beyond a bound the one longest unseen is forgotten."""
        known = self.sessions.pop(name, None)
        if known is None:
            known = Session(name, agent_class, parent)
            if len(self.sessions) >= MAX_SESSIONS:
                del self.sessions[next(iter(self.sessions))]
        self.sessions[name] = known
        return known

    def above(self, session: Session) -> Session | None:
        """The session that started this one."""
        return self.sessions.get(session.parent) if session.parent else None

    def add(self, message: StepFinished, session: Session, tool: str, prompt_tokens: int, engine_s: float) -> int:
        """A step of that session has ended. Returns by how many nodes there are more."""
        source, gap_s = session.last_step, session.ready_gap_s
        kind: EdgeKind = "next" if source else "spawn"
        if not source:
            above = self.above(session)
            source, gap_s = (above.last_step if above is not None else NO_STEP), -1.0
        output_tokens = min(max(message.output_tokens, 0), MAX_TOKENS)
        numbers = _NUMBERS.pack(gap_s, engine_s, prompt_tokens, output_tokens)
        self.nodes[message.step_id] = Node(session.name, tool, source, kind, numbers)
        self.steps += 1
        return 1 - self.trim(MAX_NODES) if len(self.nodes) > MAX_NODES else 1

    def trim(self, most: int) -> int:
        """Drop the oldest nodes; returns how many."""
        drop = list(islice(self.nodes, max(0, len(self.nodes) - most)))
        for step in drop:
            del self.nodes[step]
        return len(drop)
