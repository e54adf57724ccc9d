"""A class, or a declared workflow, in layers from start to end: boxes in the rows of `rows`, arrows between them.

In a large drawing only arrows between neighbouring rows are drawn, the others are written into their box: lines across
everything tell nothing. The same shape gives the same drawing.
"""

from collections.abc import Mapping
from typing import Final

from saga.contract.workflow_messages import Shape, ShapeEdge, ShapeNode
from saga.drawing.rows import LEAST_DRAWN, Edges, drawn_edges, rows_of
from saga.drawing.scene import Arrow, Box, Look, Scene, Words, labelled
from saga.drawing.words import END, START, count, gap_words, is_child, percent, shortened, title_of

BOX_WIDTH: Final = 180.0
BOX_HEIGHT: Final = 58.0
LINE_HEIGHT: Final = 15.0
PILL_WIDTH: Final = 76.0
PILL_HEIGHT: Final = 30.0
COLUMN_GAP: Final = 34.0
ROW_GAP: Final = 76.0
MARGIN: Final = 28.0
HEAD: Final = 64.0
FEW_NODES: Final = 8  # start and end included: all arrows are drawn
ALSO: Final = 2  # arrows written into a box
LEAST_LABEL: Final = 0.02
SIDE: Final = 70.0  # for arrows that go round rows

Curve = tuple[float, float, float, float, float, float, float, float]


def layered(shape: Shape) -> Scene:
    """The drawing of a class or of a declaration."""
    nodes = {node.id: node for node in shape.nodes}
    whole = {(e.source, e.target): e for e in shape.edges if e.source in nodes and e.target in nodes}
    drawn = drawn_edges(shape, whole)
    rows = rows_of(shape, nodes, whole, drawn)
    places = {name: (number, at) for number, row in enumerate(rows) for at, name in enumerate(row)}
    lines = drawn
    if shape.kind == "class" and len(nodes) > FEW_NODES:
        lines = {key: edge for key, edge in drawn.items() if _close(places[key[0]], places[key[1]])}
    also = _also(drawn, lines, nodes)
    side = SIDE if any(_far(places[a], places[b]) for a, b in lines) else 0.0
    width = max([520.0, *(_row_width(row, nodes) for row in rows)]) + 2 * (MARGIN + side)
    boxes: dict[str, Box] = {}
    y = HEAD
    for row in rows:
        x = (width - _row_width(row, nodes)) / 2
        for name in row:
            boxes[name] = _box(nodes[name], whole, shape, x, y, also.get(name, ""))
            x += boxes[name].width + COLUMN_GAP
        y += max((boxes[name].height for name in row), default=0.0) + ROW_GAP
    legend = _legend(shape, sum(a != b for a, b in whole) - len(drawn) if shape.kind == "class" else 0)
    height = y - ROW_GAP + MARGIN + LINE_HEIGHT * len(legend) + MARGIN / 2
    told = [Words(MARGIN, height - 14 - LINE_HEIGHT * (len(legend) - 1 - at), line) for at, line in enumerate(legend)]
    return Scene(
        width,
        height,
        tuple(boxes.values()),
        labelled(_arrows(places, lines, boxes), list(boxes.values())),
        (*_head(shape, width), *told),
    )


def _close(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a line between these places (row, column) crosses nothing much."""
    if one[0] == other[0]:
        return abs(one[1] - other[1]) <= 1
    return abs(one[0] - other[0]) <= 1


def _far(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a line between these places has to go round the rows between them."""
    return abs(one[0] - other[0]) > 1


def _also(drawn: Edges, lines: Edges, nodes: Mapping[str, ShapeNode]) -> dict[str, str]:
    """By node: where it leads to without a line."""
    missing: dict[str, list[ShapeEdge]] = {}
    for key, edge in drawn.items():
        if key not in lines and edge.probability >= LEAST_DRAWN and edge.source not in (START, END):
            missing.setdefault(edge.source, []).append(edge)
    also = {}
    for name, edges in missing.items():
        edges.sort(key=lambda e: (-e.probability, e.target))
        told = (f"{shortened(title_of(nodes[e.target]), 10)} {percent(e.probability)}" for e in edges[:ALSO])
        also[name] = shortened("→ " + ", ".join(told), 27)
    return also


def _size(node: ShapeNode) -> tuple[float, float]:
    if is_child(node):
        return BOX_WIDTH, PILL_HEIGHT
    return (PILL_WIDTH, PILL_HEIGHT) if node.kind in ("start", "end") else (BOX_WIDTH, BOX_HEIGHT)


def _row_width(row: list[str], nodes: Mapping[str, ShapeNode]) -> float:
    return sum(_size(nodes[name])[0] for name in row) + COLUMN_GAP * (len(row) - 1)


def _box(node: ShapeNode, whole: Edges, shape: Shape, x: float, y: float, also: str) -> Box:
    width, height = _size(node)
    height += LINE_HEIGHT if also else 0.0
    title = shortened(title_of(node), 19)
    if node.kind in ("start", "end"):
        return Box(x, y, width, height, title, look="end")
    if shape.kind == "workflow":
        look: Look = "done" if node.count > 0 else "todo"
        does = f"calls {node.tool}" if node.tool else "calls no tool"
        by = f"{does} · {node.session}" if node.session else does
        had = f"taken {count(node.count)}x" if node.count > 0 else f"expected {percent(node.probability)}"
        return Box(x, y, width, height, title, (shortened(by, 26), had), look)
    again = whole.get((node.id, node.id))
    share = f"{percent(node.probability)} of steps" + (f"   ↻ {percent(again.probability)}" if again else "")
    gaps = gap_words(node.gap_s)
    lines = (share, f"next after {gaps}" if gaps else "no gap seen", *([also] if also else ()))
    return Box(x, y, width, height, title, lines, "tool", node.probability)


def _arrows(places: Mapping[str, tuple[int, int]], lines: Edges, boxes: Mapping[str, Box]) -> list[Arrow]:
    edges = {key: edge for key, edge in lines.items() if key[0] != key[1]}
    # By box, top or bottom: who docks there, ways down left of ways back so that a pair of them does not cross.
    ends: dict[tuple[str, bool], list[tuple[float, bool, int, tuple[str, str]]]] = {}
    around = [key for key in edges if _far(places[key[0]], places[key[1]])]
    for source, target in edges.keys() - set(around):
        down = places[target][0] - places[source][0]
        ends.setdefault((source, down < 0), []).append((boxes[target].x, down < 0, 0, (source, target)))
        ends.setdefault((target, down > 0), []).append((boxes[source].x, down < 0, 1, (source, target)))
    docks: dict[tuple[int, tuple[str, str]], float] = {}
    for (name, _), here in ends.items():
        here.sort()
        for at, (_, _, end, key) in enumerate(here):
            docks[end, key] = boxes[name].x + boxes[name].width * (at + 1) / (len(here) + 1)
    arrows = []
    for key, edge in edges.items():
        down = places[key[1]][0] - places[key[0]][0]
        if key in around:
            points = _around(key, around.index(key), places, boxes)
        else:
            points = _between(docks[0, key], docks[1, key], boxes[key[0]], boxes[key[1]], down)
        sure = edge.kind == "declared" and edge.probability >= 1
        label = "" if sure or edge.probability < LEAST_LABEL else percent(edge.probability)
        arrows.append(Arrow(points, 0.6 if sure else edge.probability, label, dashed=down < 0 or edge.kind == "spawn"))
    return arrows


def _between(x1: float, x2: float, source: Box, target: Box, down: int) -> Curve:
    """From row to row, or in an arc below one."""
    y1 = source.y if down < 0 else source.y + source.height
    y2 = target.y if down > 0 else target.y + target.height
    bend = max(28.0, abs(y2 - y1) * 0.45) if down else 46.0
    return (x1, y1, x1, y1 + (-bend if down < 0 else bend), x2, y2 + (-bend if down > 0 else bend), x2, y2)


def _around(
    key: tuple[str, str], number: int, places: Mapping[str, tuple[int, int]], boxes: Mapping[str, Box]
) -> Curve:
    """On the outside, past the rows between: down on the right, back on the left."""
    source, target = boxes[key[0]], boxes[key[1]]
    first, last = sorted((places[key[0]][0], places[key[1]][0]))
    passed = [boxes[name] for name, (row, _) in places.items() if first <= row <= last]
    y1, y2 = source.y + source.height / 2, target.y + target.height / 2
    shift = 6.0 * (number % 4 - 1.5)
    out = 40.0 + 18.0 * (number % 4)
    if places[key[0]][0] < places[key[1]][0]:
        x = max(box.x + box.width for box in passed) + out
        return (source.x + source.width, y1 + shift, x, y1 + shift, x, y2 + shift, target.x + target.width, y2 + shift)
    x = min(box.x for box in passed) - out
    return (source.x, y1 + shift, x, y1 + shift, x, y2 + shift, target.x, y2 + shift)


def _head(shape: Shape, width: float) -> list[Words]:
    if shape.kind == "workflow":
        done = sum(node.count > 0 for node in shape.nodes)
        told = f"as declared: {done} of {len(shape.nodes)} nodes taken"
    else:
        tools = sum(node.kind == "tool" for node in shape.nodes)
        told = f"agent class: {tools} tools, learnt from {count(shape.samples)} gaps and ends"
    name = shortened(shape.name, int(width / 10))
    return [Words(MARGIN, 30, name, "title"), Words(MARGIN, 49, told)]


def _legend(shape: Shape, hidden: int) -> list[str]:
    if shape.kind == "workflow":
        return ["Arrows: what follows what; with a percentage: a choice. Dashed: back."]
    more = f" {hidden} unlikely ones are not drawn." if hidden > 0 else ""
    return [
        f"Arrows: probability of the next tool, dashed: back.{more}",
        "↻: the same tool again. Next after: time to the next step, P50 · P90.",
    ]
