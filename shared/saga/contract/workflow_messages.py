"""Graphs on the wire: what a client declares of a workflow, and what the graph service says of what it knows."""

from typing import Final, Literal

import msgspec

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.vocabulary import Message

# Bounds of one declaration: enough for what people draw, small enough that a forecast over it takes a millisecond.
MAX_DECLARED_NODES: Final = 128
MAX_DECLARED_EDGES: Final = 512

ShapeNodeKind = Literal["step", "tool", "start", "end"]
ShapeEdgeKind = Literal["next", "spawn", "declared"]
Follows = Literal["undeclared", "unstarted", "yes", "lost", "no"]


class DeclaredNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One step that a workflow is going to take, perhaps, and perhaps more than once."""

    id: str
    tool: str | None = None  # that it calls; empty: none; None: not said
    agent: str = ""  # the conversation it belongs to; empty: the workflow's own
    new_tokens: float = -1.0  # by which its prompt is longer than that of the step before; negative: not said
    gap_s: float = -1.0  # from its end to the next step, usually; negative: not said


class DeclaredEdge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What may follow what. Without a probability a dependency: what follows always, once."""

    source: str
    target: str
    probability: float = -1.0  # that it is taken after the source; negative: a dependency


class WorkflowDeclared(Message, frozen=True, kw_only=True, gc=False):
    """A client says what a workflow is going to do. A request: the graph process that speaks for it answers."""

    tenant: TenantId
    root: RootId
    agent_class: str = ""  # name under which to learn; empty: the digest of prompt and tools, as ever
    nodes: tuple[DeclaredNode, ...]
    edges: tuple[DeclaredEdge, ...]
    deadline_s: float = 0.0  # from the workflow's first step; 0: none given


class WorkflowEnded(Message, frozen=True, kw_only=True, gc=False):
    """A client says that a workflow is over, or one session of it. Said once: what gets lost ends by its silence."""

    tenant: TenantId
    root: RootId
    session: SessionId = SessionId("")  # only this one; empty: all of the workflow


class ShapeNode(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One node. Of a workflow: a step that ended; of a class: all steps that called this tool; or as declared."""

    id: str  # unique in its shape
    kind: ShapeNodeKind
    tool: str  # that was called; empty: none
    count: float = 1.0  # steps that this node stands for, older ones weigh less
    probability: float = 1.0  # of a class: share of all its steps; of a workflow: 1 for what has happened
    gap_s: tuple[float, ...] = ()  # of a class: quantiles at GAP_SHARES of what follows; of a workflow: ()
    prompt_tokens: float = 0.0  # of a workflow only
    output_tokens: float = 0.0
    engine_s: float = 0.0
    session: str = ""  # of a workflow only
    parent: str = ""  # of a workflow only: the session above
    agent_class: str = ""


class ShapeEdge(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What leads from one node to another, by their ids."""

    source: str
    target: str
    kind: ShapeEdgeKind = "next"
    probability: float = 1.0  # that it is taken when the source was
    count: float = 1.0
    gap_s: tuple[float, ...] = ()  # of a class: quantiles at GAP_SHARES; of a workflow: the one gap; (): unknown


class Shape(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The graph of a class or of a workflow, as the graph service tells it: nodes, edges, and what was left out."""

    name: str
    kind: Literal["class", "workflow"]
    tenant: str
    nodes: tuple[ShapeNode, ...]
    edges: tuple[ShapeEdge, ...]
    samples: int = 0  # of a class: gaps and ends learnt from, ever; of a workflow: its steps
    left_out: int = 0  # nodes and edges that did not fit into one message: the least telling ones


class ClassFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line of a list of what is learnt."""

    name: str  # `class/TENANT/CLASS`, `tenant/TENANT` or `all`
    samples: int  # gaps learnt from
    tools: tuple[str, ...] = ()  # most called first
    tools_seen: int = 0
    gap_p50_s: float = -1.0  # negative: unknown
    gap_p90_s: float = -1.0
    steps: float = 0.0  # mean of a session
    learnt_until_at: float = 0.0  # wall time of the newest step


class NextStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a declaration expects of a session."""

    node: str
    tool: str = ""
    probability: float = 1.0


class WorkflowFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known of a live workflow."""

    root: RootId
    tenant: TenantId
    agent_class: str = ""  # as declared
    steps: int = 0
    sessions: int = 0
    silent_s: float = 0.0  # since its last sign of life
    follows: Follows = "undeclared"  # whether it does what was declared
    done: tuple[str, ...] = ()  # declared nodes, in the order of their first step
    next: tuple[NextStep, ...] = ()  # of the session that ended a step last
    remaining_steps: float = -1.0  # of the workflow, by its declaration; negative: no declaration that it follows
    shape: Shape | None = None  # the steps it took
    declared: Shape | None = None


class GraphAsk(Message, frozen=True, kw_only=True, gc=False):
    """What do you know? Each process answers for what it speaks for: to `graph.answer.<asker>`, or who requests."""

    what: Literal["classes", "show"]
    name: str = ""  # to show: a class or a workflow, in full or what follows its tenant
    tenant: str = ""  # only of this one; empty: of all
    asker: str = ""


class GraphReset(Message, frozen=True, kw_only=True, gc=False):
    """Forget what was learnt, in memory and in storage."""

    name: str  # of a class, in full; empty: everything
    asker: str = ""


class GraphAnswer(Message, frozen=True, kw_only=True, gc=False):
    """One part of what one process knows, or did."""

    member: str
    partitions: tuple[int, ...]  # that it speaks for
    part: int = 0  # from 0
    parts: int = 1
    classes: tuple[ClassFacts, ...] = ()
    shapes: tuple[Shape, ...] = ()
    workflows: tuple[WorkflowFacts, ...] = ()
    near: tuple[str, ...] = ()  # names like the one asked for, when it is not known
    forgotten: tuple[str, ...] = ()  # models that were reset
    stored: bool = True  # what was to be forgotten is no longer stored either
