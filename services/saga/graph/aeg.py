"""The agent execution graph of one live workflow: its steps, what they called, and what led from one to the next. Pure.

Nodes are steps, edges lead from a step to the next of its session or to the first of a session it started, with the
gap between. Bounded: of a long workflow the oldest nodes go. Learning across workflows is `models`' business.
"""

from collections import OrderedDict
from typing import Final, Literal

import msgspec

from saga.contract.ids import RootId, SessionId, StepId, TenantId
from saga.contract.messages import StepFinished

MAX_NODES: Final = 512
MAX_SESSIONS: Final = 256


class Edge(msgspec.Struct, frozen=True, gc=False):
    """What led to a step."""

    kind: Literal["next", "spawn"]
    source: StepId
    gap_s: float  # from the source's end to this step; negative: unknown


class Node(msgspec.Struct, frozen=True, gc=False):
    """One step that ended."""

    step_id: StepId
    session: SessionId
    tool: str
    prompt_tokens: int
    output_tokens: int
    engine_s: float
    edge: Edge | None = None


class Session(msgspec.Struct, gc=False):
    """Where one conversation stands."""

    agent_class: str
    parent: SessionId
    steps: int = 0
    tool: str = ""  # called by the last step
    last_step: StepId = StepId("")
    prompt_tokens: int = 0  # of the last step
    ended_s: float = -1.0  # when the last step ended, on our clock; negative: known from a replay only
    ready_step: StepId = StepId("")  # the step after it, once seen: its gap is learnt
    ready_gap_s: float = -1.0
    counted_end: int = 0  # the step, called no tool, that is taken for its end; 0: none


class Aeg:
    """One workflow."""

    __slots__ = ("nodes", "root", "seen_s", "sessions", "tenant")

    def __init__(self, root: RootId, tenant: TenantId, now_s: float) -> None:
        self.root = root
        self.tenant = tenant
        self.seen_s = now_s  # last sign of life
        self.sessions: OrderedDict[SessionId, Session] = OrderedDict()
        self.nodes: OrderedDict[StepId, Node] = OrderedDict()

    def session(self, name: SessionId, agent_class: str = "", parent: SessionId = SessionId("")) -> Session:  # noqa: B008 - a NewType is no call
        """The session of that name, made when new; beyond a bound the one longest unseen is forgotten."""
        known = self.sessions.get(name)
        if known is None:
            known = self.sessions[name] = Session(agent_class, parent)
            if len(self.sessions) > MAX_SESSIONS:
                self.sessions.popitem(last=False)
        self.sessions.move_to_end(name)
        return known

    def add(self, message: StepFinished, tool: str, gap_s: float) -> None:
        """A step has ended: its node, and the edge that led to it."""
        session = self.session(message.session, message.agent_class, message.parent)
        edge = None
        if session.last_step:
            edge = Edge("next", session.last_step, gap_s)
        elif session.parent in self.sessions and self.sessions[session.parent].last_step:
            edge = Edge("spawn", self.sessions[session.parent].last_step, -1.0)
        self.nodes[message.step_id] = Node(
            message.step_id,
            message.session,
            tool,
            message.prompt_tokens,
            message.output_tokens,
            message.engine_s,
            edge,
        )
        if len(self.nodes) > MAX_NODES:
            self.nodes.popitem(last=False)


def tool_of(message: StepFinished) -> str:
    """The name under which what follows a step is learnt: the tools it called, or none."""
    return "+".join(sorted(set(message.tools)))[:128]
