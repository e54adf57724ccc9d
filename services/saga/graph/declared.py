"""Workflows that were declared: their plans, how far each has come, and what is to be expected. Pure.

A step is matched to a node of its plan by the name that the client gave it, else by the tool it called among the nodes
that may come next. An agent that does something else is lost until a step is recognised again; after `MAX_MISSES` such
steps its declaration counts for nothing and only what is learnt speaks. What a plan says is `plan`'s business.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import GAP_SHARES, StepFinished, WorkflowDeclared
from saga.contract.workflow_messages import (
    MAX_DECLARED_EDGES,
    MAX_DECLARED_NODES,
    Follows,
    NextStep,
    Shape,
    ShapeEdge,
    ShapeNode,
)
from saga.graph.forecast import Estimate
from saga.graph.plan import Plan

MAX_PARTS: Final = 400_000  # nodes and edges of all plans together: some 100 MB
MAX_TENANT_PARTS: Final = 100_000  # of one tenant: its oldest plans go, nobody else's
MAX_SESSIONS: Final = 256  # followed per workflow
MAX_MISSES: Final = 3
DOUBT: Final = 0.02  # that an agent which followed its plan so far will not, with its next step
_MEDIAN: Final = GAP_SHARES.index(0.5)


class Expected(msgspec.Struct, frozen=True, gc=False):
    """What a plan says of a session whose step just ended."""

    returns: float
    remaining_steps: float  # of this session
    new_tokens: float  # of the next step; negative: not declared
    gap_s: float  # before the next step, usually; negative: not declared


class _Place(msgspec.Struct, gc=False):
    """Where one session stands in the plan."""

    child: bool  # another session started it
    agent: str | None = None  # of the nodes it does; None: not known yet
    at: int = -1  # the node of its last step; negative: none yet, or lost
    lost: bool = False
    own: dict[int, int] = {}  # steps that it had of each node


class Tracked:
    """One declared workflow."""

    __slots__ = ("agent_class", "counts", "misses", "parts", "places", "plan", "recent", "tenant")

    def __init__(self, message: WorkflowDeclared) -> None:
        nodes = message.nodes[:MAX_DECLARED_NODES]
        edges = message.edges[:MAX_DECLARED_EDGES]
        self.plan = Plan(nodes, edges)
        self.tenant = message.tenant
        self.agent_class = message.agent_class
        self.parts = len(nodes) + len(edges)
        self.counts: dict[int, int] = {}  # steps that each node has had, in the order of their first
        self.places: OrderedDict[SessionId, _Place] = OrderedDict()  # longest silent first
        self.recent = SessionId("")  # whose step ended last
        self.misses = 0

    @property
    def follows(self) -> Follows:
        """Whether the workflow does what was declared of it."""
        if self.misses >= MAX_MISSES:
            return "no"
        place = self.places.get(self.recent)
        if place is None:
            return "unstarted"
        return "lost" if place.lost else "yes"

    def took(self, session: SessionId, parent: SessionId, tools: tuple[str, ...], node: str) -> None:
        """A step of the workflow has ended; it had called these tools. `node`: as the client named it, if it did."""
        place = self.places.get(session)
        if place is None:
            place = self.places[session] = _Place(bool(parent))
            if len(self.places) > MAX_SESSIONS:
                self.places.popitem(last=False)
        self.places.move_to_end(session)
        self.recent = session
        found = self._found(place, tools, node)
        if found < 0:
            self.misses += 1
            place.lost, place.at = True, -1
            return
        place.lost, place.at = False, found
        place.own[found] = place.own.get(found, 0) + 1
        if place.agent is None:
            place.agent = self.plan.nodes[found].agent
        self.counts[found] = self.counts.get(found, 0) + 1

    def expects(self, session: SessionId) -> Expected | None:
        """What the plan says of this session; None where it is not followed."""
        place = self.places.get(session)
        if place is None or place.at < 0 or self.misses >= MAX_MISSES:
            return None
        plan = self.plan
        agent = plan.nodes[place.at].agent
        # Of a sub-agent nothing may tell what is its own: then what follows from what it did.
        counts = place.own if place.child and len(plan.agents) == 1 else self.counts
        visits = plan.visits(counts, [place.at])
        follows = plan.next_of(place.at, self.counts)
        weights = [(plan.nodes[target].new_tokens, share) for target, share in follows]
        told = [(tokens, share) for tokens, share in weights if tokens >= 0]
        weight = sum(share for _, share in told)
        return Expected(
            returns=plan.returns(agent, place.at, plan.pending(counts)),
            remaining_steps=sum(v for v, n in zip(visits, plan.nodes, strict=True) if n.agent == agent),
            new_tokens=sum(tokens * share for tokens, share in told) / weight if weight > 0 else -1.0,
            gap_s=plan.nodes[place.at].gap_s,
        )

    # For who asks

    def remaining_steps(self) -> float:
        """Of the whole workflow; negative while it is not followed."""
        if self.follows in ("no", "lost"):
            return -1.0
        ats = [place.at for place in self.places.values() if place.at >= 0]
        return sum(self.plan.visits(self.counts, ats))

    def next_steps(self) -> tuple[NextStep, ...]:
        """What may follow the step that ended last."""
        if self.follows not in ("yes", "unstarted"):
            return ()
        place = self.places.get(self.recent)
        if place is None:
            follows = [(entry, 1.0) for entry in self.plan.entries]
        else:
            follows = self.plan.next_of(place.at, self.counts)
        nodes = self.plan.nodes
        return tuple(NextStep(node=nodes[n].id, tool=nodes[n].tool or "", probability=p) for n, p in follows)

    def done(self) -> tuple[str, ...]:
        """Nodes that had a step, in the order of their first."""
        return tuple(self.plan.nodes[node].id for node in self.counts)

    def shape(self, root: RootId) -> Shape:
        """The plan to be drawn; a node counts the steps it had."""
        plan = self.plan
        visits = plan.visits({}, [])
        nodes = tuple(
            ShapeNode(
                node.id,
                "step",
                node.tool or "",
                count=float(self.counts.get(number, 0)),
                probability=min(1.0, visits[number]),
                session=node.agent,
            )
            for number, node in enumerate(plan.nodes)
        )
        edges = tuple(
            ShapeEdge(edge.source, edge.target, "declared", edge.probability if edge.probability >= 0 else 1.0, 0.0)
            for edge in plan.edges
        )
        return Shape(str(root), "workflow", str(self.tenant), nodes, edges, samples=sum(self.counts.values()))

    def _found(self, place: _Place, tools: tuple[str, ...], named: str) -> int:
        """The node of a step; negative: none."""
        plan = self.plan
        if named:
            return plan.numbers.get(named, -1)
        if place.lost:
            same = [n for n, node in enumerate(plan.nodes) if node.tool and _calls(node.tool, tools)]
            return same[0] if len(same) == 1 else -1
        may = [n for n, _ in plan.next_of(place.at, self.counts)] if place.at >= 0 else list(plan.entries)
        may += sorted(plan.pending(self.counts) - set(may))
        if place.at < 0:  # a new session: it may begin wherever another one stands
            may += [
                n for other in self.places.values() if other.at >= 0 for n, _ in plan.next_of(other.at, self.counts)
            ]
        fitting = [n for n in may if self._fits(place, plan.nodes[n].agent)] or may
        exact = [n for n in fitting if (tool := plan.nodes[n].tool) is not None and _calls(tool, tools)]
        anything = [n for n in fitting if plan.nodes[n].tool is None]
        return next(iter(exact + anything), -1)

    @staticmethod
    def _fits(place: _Place, agent: str) -> bool:
        return agent == place.agent if place.agent is not None else bool(agent) == place.child


class Declarations:
    """All declared workflows that live; bounded, each tenant for itself and all together."""

    def __init__(self) -> None:
        self.by_root: OrderedDict[RootId, Tracked] = OrderedDict()  # oldest first
        self._parts: dict[TenantId, int] = {}
        self._messages: dict[RootId, WorkflowDeclared] = {}  # to know a repetition

    def declare(self, message: WorkflowDeclared) -> None:
        """A workflow was declared; the same again changes nothing, another takes the place of the first."""
        if self._messages.get(message.root) == message:
            return
        self.drop(message.root)
        tracked = self.by_root[message.root] = Tracked(message)
        self._messages[message.root] = message
        self._parts[message.tenant] = self._parts.get(message.tenant, 0) + tracked.parts
        while self._parts[message.tenant] > MAX_TENANT_PARTS:
            self.drop(next(root for root, other in self.by_root.items() if other.tenant == message.tenant))
        while sum(self._parts.values()) > MAX_PARTS:
            self.drop(next(iter(self.by_root)))

    def drop(self, root: RootId) -> None:
        """The workflow is over; nothing happens when it was never declared."""
        tracked = self.by_root.pop(root, None)
        if tracked is None:
            return
        del self._messages[root]
        self._parts[tracked.tenant] -= tracked.parts
        if not self._parts[tracked.tenant]:
            del self._parts[tracked.tenant]

    def took(self, message: StepFinished) -> None:
        """A step has ended, perhaps of a declared workflow."""
        tracked = self.by_root.get(message.root)
        if tracked is not None:
            tracked.took(message.session, message.parent, message.tools, message.node)

    def adjusted(self, root: RootId, session: SessionId, said: Estimate) -> Estimate:
        """What is learnt, with what is declared in its place where the workflow follows its declaration."""
        tracked = self.by_root.get(root)
        expected = tracked.expects(session) if tracked is not None else None
        if expected is None:
            return said
        step_s = said.remaining_engine_s / said.remaining_steps if said.remaining_steps > 0 else 0.0
        gap_s = said.gap_s
        if not said.samples and expected.gap_s >= 0:  # nothing is learnt: what is usual, as long as was declared
            gap_s = tuple(value * expected.gap_s / said.gap_s[_MEDIAN] for value in said.gap_s)
        return msgspec.structs.replace(
            said,
            returns=min(1.0 - DOUBT, max(DOUBT, expected.returns)),
            gap_s=gap_s,
            new_tokens=expected.new_tokens if expected.new_tokens >= 0 else said.new_tokens,
            remaining_steps=expected.remaining_steps,
            remaining_engine_s=expected.remaining_steps * step_s,
        )

    def class_of(self, root: RootId, parent: SessionId, agent_class: str) -> str:
        """The class to learn a session under: as declared, but a sub-agent's is its own."""
        tracked = self.by_root.get(root)
        return tracked.agent_class if tracked is not None and tracked.agent_class and not parent else agent_class

    def check(self) -> None:
        """Raise AssertionError where the books are wrong."""
        parts: dict[TenantId, int] = {}
        for tracked in self.by_root.values():
            parts[tracked.tenant] = parts.get(tracked.tenant, 0) + tracked.parts
        if parts != self._parts or self._messages.keys() != self.by_root.keys():
            raise AssertionError("the parts of declared workflows are miscounted")


def _calls(declared: str, tools: tuple[str, ...]) -> bool:
    """Whether a step that called these tools does what a node says; the empty name: none."""
    return declared in tools if declared else not tools
