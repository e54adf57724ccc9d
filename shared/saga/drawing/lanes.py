"""A workflow as it happened: a lane for each session, a sub-agent's below its parent's, steps from left to right.

Steps in a row that called the same tool share a box. Long lanes go on in a next row; of many sessions the first are
drawn. The same shape gives the same drawing.
"""

from typing import Final

import msgspec

from saga.contract.workflow_messages import Shape, ShapeEdge, ShapeNode
from saga.drawing.scene import Arrow, Box, Scene, Words, labelled
from saga.drawing.words import count, seconds, shortened, tool_word

BOX_WIDTH: Final = 112.0
BOX_HEIGHT: Final = 44.0
COLUMN_GAP: Final = 60.0
ROW_GAP: Final = 26.0
LANE_GAP: Final = 30.0
INDENT: Final = 30.0
MARGIN: Final = 28.0
HEAD: Final = 66.0
LANE_HEAD: Final = 22.0
IN_ROW: Final = 6
MAX_RUNS: Final = 60  # boxes of one lane: of a longer one the newest
MAX_LANES: Final = 24


class Run(msgspec.Struct):
    """Steps of one session in a row that called the same tool."""

    session: str
    tool: str
    steps: int
    tokens: float  # of the last prompt
    engine_s: float
    gap_s: float  # before the first of them; negative: unknown
    mean_gap_s: float  # between them; negative: unknown


class Lane(msgspec.Struct):
    """One session."""

    session: str
    parent: str
    depth: int
    steps: int
    runs: list[Run]
    spawned_by: str  # step id; empty: unknown
    left_out: int = 0  # runs


def lanes_of(shape: Shape) -> list[Lane]:
    """The sessions of a workflow, parents before their children, those first that began first."""
    into = {edge.target: edge for edge in shape.edges}
    steps: dict[str, list[ShapeNode]] = {}
    for node in shape.nodes:
        steps.setdefault(node.session, []).append(node)
    children: dict[str, list[str]] = {}
    for session, nodes in steps.items():
        parent = nodes[0].parent
        children.setdefault(parent if parent in steps and parent != session else "", []).append(session)
    lanes: list[Lane] = []
    todo = [(session, 0) for session in reversed(children.get("", []))]
    while todo:
        session, depth = todo.pop()
        nodes = steps[session]
        runs = _runs(nodes, into)
        first = into.get(nodes[0].id)
        spawned_by = first.source if first is not None and first.kind == "spawn" else ""
        left_out = max(0, len(runs) - MAX_RUNS)
        lanes.append(Lane(session, nodes[0].parent, depth, len(nodes), runs[left_out:], spawned_by, left_out))
        todo += [(child, depth + 1) for child in reversed(children.get(session, []))]
    return lanes


def lanes_drawn(shape: Shape) -> Scene:
    """The drawing of what a workflow did."""
    lanes = lanes_of(shape)
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    words = _head(shape, len(lanes))
    heads: dict[str, tuple[float, float]] = {}  # by session: left end and baseline of its name
    y, width = HEAD, 640.0
    for lane in lanes[:MAX_LANES]:
        left = MARGIN + INDENT * min(lane.depth, 6)
        if lane.parent in heads and lane.depth:
            x, above = heads[lane.parent][0] - 10, heads[lane.parent][1]
            middle = y + LANE_HEAD - 11
            arrows.append(Arrow((x, above + 8, x, middle, x, middle, left - 4, middle), 0.15))
        heads[lane.session] = (left, y + LANE_HEAD - 7)
        words.append(Words(left, y + LANE_HEAD - 7, _lane_name(lane, shape)))
        y += LANE_HEAD
        for at, run in enumerate(lane.runs):
            column, row = at % IN_ROW, at // IN_ROW
            x, top = left + column * (BOX_WIDTH + COLUMN_GAP), y + row * (BOX_HEIGHT + ROW_GAP)
            boxes.append(_box(run, x, top))
            if at:
                arrows.append(_arrow(boxes[-2], boxes[-1], run, wraps=column == 0))
            width = max(width, x + BOX_WIDTH + MARGIN)
        rows = -(-len(lane.runs) // IN_ROW)
        y += rows * (BOX_HEIGHT + ROW_GAP) - ROW_GAP + LANE_GAP
    if len(lanes) > MAX_LANES:
        words.append(Words(MARGIN, y, f"and {len(lanes) - MAX_LANES} more sessions"))
        y += LANE_HEAD
    return Scene(width, y, tuple(boxes), labelled(arrows, boxes), tuple(words))


def _runs(nodes: list[ShapeNode], into: dict[str, ShapeEdge]) -> list[Run]:
    runs: list[Run] = []
    gaps: list[float] = []
    for node in nodes:
        edge = into.get(node.id)
        gap_s = edge.gap_s[0] if edge is not None and edge.kind == "next" and edge.gap_s else -1.0
        if runs and runs[-1].tool == node.tool:
            run = runs[-1]
            run.steps += 1
            run.tokens = node.prompt_tokens
            run.engine_s += node.engine_s
            if gap_s >= 0:
                gaps.append(gap_s)
                run.mean_gap_s = sum(gaps) / len(gaps)
        else:
            gaps = []
            runs.append(Run(node.session, node.tool, 1, node.prompt_tokens, node.engine_s, gap_s, -1.0))
    return runs


def _box(run: Run, x: float, y: float) -> Box:
    name = shortened(tool_word(run.tool), 15 if run.steps == 1 else 11)
    title = name if run.steps == 1 else f"{name} ×{run.steps}"  # noqa: RUF001 - times
    return Box(x, y, BOX_WIDTH, BOX_HEIGHT, title, (f"{count(run.tokens)} tokens",), "tool" if run.tool else "todo")


def _arrow(before: Box, after: Box, run: Run, *, wraps: bool) -> Arrow:
    label = seconds(run.gap_s) if run.gap_s >= 0 else ""
    if not wraps:
        y = before.y + before.height / 2
        x1, x2 = before.x + before.width, after.x
        third = (x2 - x1) / 3
        return Arrow((x1, y, x1 + third, y, x2 - third, y, x2, y), 0.3, label)
    x1, y1 = before.x + before.width / 2, before.y + before.height
    x2, y2 = after.x + after.width / 2, after.y
    return Arrow((x1, y1, x1, y1 + 22, x2, y2 - 22, x2, y2), 0.3, label)


def _lane_name(lane: Lane, shape: Shape) -> str:
    name = shortened(own_name(lane.session, shape.tenant), 48) or "main"
    told = f"{name}: {lane.steps} steps" if lane.steps != 1 else f"{name}: 1 step"
    return told + (f", the first {lane.left_out} boxes not drawn" if lane.left_out else "")


def own_name(name: str, tenant: str) -> str:
    """An id as the client knows it."""
    return name.removeprefix(f"{tenant}/")


def _head(shape: Shape, lanes: int) -> list[Words]:
    engine_s = sum(node.engine_s for node in shape.nodes)
    told = f"workflow: {shape.samples} steps in {lanes} {'session' if lanes == 1 else 'sessions'}, "
    told += f"{seconds(engine_s)} at engines. Between boxes: time from one step to the next."
    return [Words(MARGIN, 30, shortened(shape.name, 60), "title"), Words(MARGIN, 49, told)]
