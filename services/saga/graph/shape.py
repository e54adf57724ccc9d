"""The graph of an agent class or of one workflow as plain data, for whoever draws or lists it. Pure.

A shape is the published tuple: nodes with the tool they called, edges with the probability of being taken. Of a class
the nodes are tools, START and END, and the classes of sub-agents; of a workflow its steps. Asked for through `state`.
"""

from typing import Final

from saga.contract.messages import GAP_SHARES
from saga.contract.workflow_messages import Shape, ShapeEdge, ShapeNode
from saga.graph.aeg import Aeg
from saga.graph.models import OTHER, START, Edge, Model, ToolModel
from saga.graph.sketch import Sketch, quantiles

END: Final = "~end"
NONE: Final = "~none"  # id of the node of steps that call no tool


def class_shape(model: Model) -> Shape:
    """What is learnt of a class: tools most called first, then the edges of each, most likely first."""
    tools = sorted((name for name in model.tools if name != START), key=lambda n: (-_steps(model.tools[n]), n))
    steps = sum(_steps(model.tools[name]) for name in tools)
    ids = {follows.number: name or NONE for name, follows in model.tools.items()}
    nodes = [ShapeNode(START, "start", "", count=_edges(model.tools.get(START)), agent_class=model.name)]
    nodes += [
        ShapeNode(
            name or NONE,
            "tool",
            name,
            count=_steps(model.tools[name]),
            probability=_steps(model.tools[name]) / max(1, steps),
            gap_s=_gap_s(model.tools[name].gaps),
        )
        for name in tools
    ]
    edges: list[ShapeEdge] = []
    for name in [START, *tools] if START in model.tools else tools:
        edges += _next_edges(name or NONE, model.tools[name], ids)
    children = _children(model, tools)
    nodes += [ShapeNode(END, "end", "", count=sum(model.tools[name].ended for name in tools))]
    named = dict.fromkeys(edge.target for edge in children)
    nodes += [ShapeNode(child, "start", "", agent_class=child.removeprefix("class:")) for child in named]
    tenant = model.name.split("/", 2)[1] if "/" in model.name else ""
    return Shape(model.name, "class", tenant, tuple(nodes), tuple(edges + children), samples=model.outcomes)


def _next_edges(source: str, follows: ToolModel, ids: dict[int, str]) -> list[ShapeEdge]:
    edges: dict[str, Edge] = {}
    for number, edge in follows.next.items():
        target = ids.get(number, OTHER)
        if target in edges:  # only OTHER
            edge = Edge(edges[target].count + edge.count)  # noqa: PLW2901 - the sum takes its place
        edges[target] = edge
    whole = follows.ended + sum(edge.count for edge in edges.values())
    if not whole:
        return []
    made = [
        ShapeEdge(source, target, "next", edge.count / whole, edge.count, _gap_s(edge.gaps))
        for target, edge in edges.items()
    ]
    if follows.ended:
        made.append(ShapeEdge(source, END, "next", follows.ended / whole, follows.ended))
    return sorted(made, key=lambda edge: (-edge.probability, edge.target))


def _children(model: Model, tools: list[str]) -> list[ShapeEdge]:
    return [
        ShapeEdge(name or NONE, f"class:{child}", "spawn", min(1.0, count / max(1, _steps(model.tools[name]))), count)
        for name in tools
        for child, count in sorted(model.tools[name].children.items(), key=lambda item: (-item[1], item[0]))
    ]


def _steps(follows: ToolModel) -> int:
    return max(follows.count, _edges(follows))


def _edges(follows: ToolModel | None) -> int:
    return sum(edge.count for edge in follows.next.values()) if follows is not None else 0


def _gap_s(gaps: Sketch | None) -> tuple[float, ...]:
    return tuple(quantiles(gaps, GAP_SHARES)) if gaps is not None and gaps.total else ()


def workflow_shape(aeg: Aeg) -> Shape:
    """The steps of a live workflow, oldest first, and what led to each."""
    nodes = []
    edges = []
    for step, node in aeg.nodes.items():
        gap_s, engine_s, prompt_tokens, output_tokens = node.measured()
        session = aeg.sessions.get(node.session)
        nodes.append(
            ShapeNode(
                step,
                "step",
                node.tool,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                engine_s=max(0.0, engine_s),
                session=node.session,
                parent=session.parent if session is not None else "",
                agent_class=session.agent_class if session is not None else "",
            )
        )
        if node.source in aeg.nodes:
            edges.append(ShapeEdge(node.source, step, node.kind, gap_s=(gap_s,) if gap_s >= 0 else ()))
    return Shape(aeg.root, "workflow", aeg.tenant, tuple(nodes), tuple(edges), samples=aeg.steps)
