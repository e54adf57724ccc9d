"""What the graph's core knows, told to who asks: lists, shapes, workflows. Questions only, nothing changes. Pure.

Each process answers for the partitions that it speaks for, so that the answers of all together are everything, once.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Final

import msgspec

from saga.contract.ids import RootId
from saga.contract.messages import GraphAnswer, GraphAsk
from saga.contract.workflow_messages import ClassFacts, Shape, WorkflowFacts
from saga.graph.models import OTHER, START, Model
from saga.graph.partitions import partition_of
from saga.graph.situation import NO_TOOL
from saga.graph.sketch import quantiles
from saga.graph.state import GLOBAL, GraphState

FACTS_IN_ONE: Final = 200  # classes in one part of an answer
TOOLS_TOLD: Final = 8
NAME_CHARS: Final = 48  # of a tool in a list
PREFIX_CHARS: Final = 4  # that may stand for a whole name
NEAR: Final = 5
NEAR_ROOTS: Final = 200  # workflows seen last, searched for a name that is not known
MATCHES: Final = 8  # told of an ambiguous name
SHAPE_BYTES: Final = 100_000  # of one shape: two of them, and what is around, fit into a message

_encoder = msgspec.msgpack.Encoder()


def answers(state: GraphState, ask: GraphAsk, member: str, owned: frozenset[int], now_s: float) -> list[GraphAnswer]:
    """Every part of this process's answer; at least one, so that who asks knows to have been heard."""
    base = GraphAnswer(member=member, partitions=tuple(sorted(owned)))
    names = sorted(n for n in state.models if partition_of(n) in owned and ask.tenant in ("", tenant_of(n)))
    if ask.what == "classes":
        facts = [class_facts(state.models[name]) for name in names]
        made = [
            msgspec.structs.replace(base, classes=tuple(facts[at : at + FACTS_IN_ONE]))
            for at in range(0, len(facts), FACTS_IN_ONE)
        ]
    else:
        made = _shown(state, ask, names, base, now_s)
    made = made or [base]
    return [msgspec.structs.replace(one, part=number, parts=len(made)) for number, one in enumerate(made)]


def _shown(state: GraphState, ask: GraphAsk, names: list[str], base: GraphAnswer, now_s: float) -> list[GraphAnswer]:
    shapes = [shape for name in _named(ask.name, names) if (shape := state.class_shape(name)) is not None]
    made = [msgspec.structs.replace(base, shapes=(told(shape),)) for shape in shapes]
    declared = {str(tracked.tenant) for tracked in state.declared.by_root.values()}
    tenants = {ask.tenant} if ask.tenant else {tenant_of(name) for name in state.models} | declared
    roots = [RootId(ask.name), *(RootId(f"{tenant}/{ask.name}") for tenant in sorted(tenants))]
    for root in dict.fromkeys(roots[:MATCHES]):
        facts = workflow_facts(state, root, now_s) if partition_of(root) in base.partitions else None
        if facts is not None and ask.tenant in ("", facts.tenant):
            made.append(msgspec.structs.replace(base, workflows=(facts,)))
    if made:
        return made
    newest = islice(reversed(state.workflows.values()), NEAR_ROOTS)
    live = [str(a.root) for a in newest if partition_of(a.root) in base.partitions and ask.tenant in ("", a.tenant)]
    return [msgspec.structs.replace(base, near=near(ask.name, [*names, *live]))]


def workflow_facts(state: GraphState, root: RootId, now_s: float) -> WorkflowFacts | None:
    """All that is known of a live workflow."""
    aeg = state.workflows.get(root)
    if aeg is None:
        return None
    shape = state.workflow_shape(root)
    facts = WorkflowFacts(
        root=root,
        tenant=aeg.tenant,
        steps=shape.samples if shape is not None else 0,
        sessions=len(aeg.sessions),
        silent_s=max(0.0, now_s - aeg.seen_s),
        shape=told(shape) if shape is not None else None,
    )
    tracked = state.declared.by_root.get(root)
    if tracked is None:
        return facts
    return msgspec.structs.replace(
        facts,
        agent_class=tracked.agent_class,
        follows=tracked.follows,
        done=tracked.done(),
        next=tracked.next_steps(),
        remaining_steps=tracked.remaining_steps(),
        declared=tracked.shape(root),
    )


def class_facts(model: Model) -> ClassFacts:
    """A model in one line."""
    calls = {name: follows.count for name, follows in model.tools.items() if name not in (START, OTHER, NO_TOOL)}
    most = sorted(calls, key=lambda name: (-calls[name], name))
    p50, p90 = quantiles(model.gaps, (0.5, 0.9)) if model.gaps.samples else (-1.0, -1.0)
    return ClassFacts(
        name=model.name,
        samples=model.gaps.samples,
        tools=tuple(name[:NAME_CHARS] for name in most[:TOOLS_TOLD]),
        tools_seen=len(calls),
        gap_p50_s=p50,
        gap_p90_s=p90,
        steps=model.mean_steps,
        learnt_until_at=model.learnt_until_at,
    )


def told(whole: Shape) -> Shape:
    """A shape as it travels: what is least telling is left out until it fits."""
    fits, dropped = whole, 0
    while len(_encoder.encode(fits)) > SHAPE_BYTES:
        if whole.kind == "class" and len(fits.edges) > len(fits.nodes):
            keep = sorted(fits.edges, key=lambda e: (-e.count * e.probability, e.source, e.target))
            kept = frozenset((e.source, e.target) for e in keep[: len(keep) * 3 // 4])
            edges = tuple(e for e in fits.edges if (e.source, e.target) in kept)
            fits = msgspec.structs.replace(fits, edges=edges)
        else:  # of a class the rarest tools are last, of a workflow the oldest steps are first
            most = len(fits.nodes) * 3 // 4
            nodes = fits.nodes[:most] if whole.kind == "class" else fits.nodes[-most:]
            here = {node.id for node in nodes}
            edges = tuple(e for e in fits.edges if e.source in here and e.target in here)
            fits = msgspec.structs.replace(fits, nodes=nodes, edges=edges)
        dropped = len(whole.nodes) + len(whole.edges) - len(fits.nodes) - len(fits.edges)
    return msgspec.structs.replace(fits, left_out=dropped) if dropped else fits


def tenant_of(model_name: str) -> str:
    """Whose model it is; of all: nobody's."""
    return "" if model_name == GLOBAL else model_name.split("/", 2)[1]


def near(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names like this one, in full; any of them where none is."""
    by_end = {full.rsplit("/", 1)[-1]: full for full in known}
    by_end |= {full: full for full in by_end.values()}
    like = [by_end[end] for end in get_close_matches(name, list(by_end), 2 * NEAR, 0.5)]
    return tuple(dict.fromkeys(like or by_end.values()))[:NEAR]


def _named(name: str, names: list[str]) -> list[str]:
    """Models that are called so: in full, by what follows their tenant, or by how that begins."""
    exact = [full for full in names if name in (full, full.split("/", 2)[-1])]
    if exact or len(name) < PREFIX_CHARS:
        return exact[:MATCHES]
    return [full for full in names if full.split("/", 2)[-1].startswith(name)][:MATCHES]
