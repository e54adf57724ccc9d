"""Which arrows of a graph are worth drawing, and in which rows its nodes stand. The same shape gives the same rows.

Of a class every tool may follow every other: only the likely edges are drawn, and each node keeps the one by which it
is mostly reached. Layers are the distance from the start along the likeliest way (of a declaration: the longest way),
broken into rows; within a row nodes stand near those that lead to them. Used by `layers`.
"""

import math
from collections.abc import Mapping
from typing import Final

from saga.contract.workflow_messages import Shape, ShapeEdge, ShapeNode
from saga.drawing.words import END, START

MAX_IN_ROW: Final = 5
LEAST_DRAWN: Final = 0.05  # probability of an edge, unless it is the likeliest
_SWEEPS: Final = 6

Edges = dict[tuple[str, str], ShapeEdge]


def drawn_edges(shape: Shape, whole: Edges) -> Edges:
    """The edges worth a line: of each node its likeliest, and to each node one."""
    if shape.kind == "workflow":
        return whole
    most = 4 if len(shape.nodes) <= 8 else 3 if len(shape.nodes) <= 18 else 2
    by_source: dict[str, list[ShapeEdge]] = {}
    by_target: dict[str, list[ShapeEdge]] = {}
    for edge in whole.values():
        if edge.source != edge.target:
            by_source.setdefault(edge.source, []).append(edge)
            by_target.setdefault(edge.target, []).append(edge)
    kept: Edges = {}
    for edges in by_source.values():
        edges.sort(key=lambda e: (-e.probability, e.target))
        for number, edge in enumerate(edges[:most]):
            if number == 0 or edge.probability >= LEAST_DRAWN:
                kept[edge.source, edge.target] = edge
    reached = {target for _, target in kept}
    for target, edges in by_target.items():
        if target not in reached:
            main = min(edges, key=lambda e: (-e.count, -e.probability, e.source))
            kept[main.source, target] = main
    return {key: edge for key, edge in whole.items() if key in kept}


def rows_of(shape: Shape, nodes: Mapping[str, ShapeNode], whole: Edges, drawn: Edges) -> list[list[str]]:
    layer = _longest_ways(nodes, drawn) if shape.kind == "workflow" else _likeliest_ways(nodes, whole)
    likeliest: dict[str, ShapeEdge] = {}
    for edge in whole.values():
        if edge.source not in likeliest or edge.probability > likeliest[edge.source].probability:
            likeliest[edge.source] = edge
    last = max(layer.values(), default=0) + 1
    layer |= {target: 1 for source, target in drawn if source == START}
    layer |= {name: last for name, edge in likeliest.items() if edge.target == END and shape.kind == "class"}
    by_layer: dict[int, list[str]] = {}
    firsts = [name for name in nodes if (START, name) in drawn]  # then in the order of the shape: the frequent first
    for name in dict.fromkeys([*firsts, *nodes]):
        if name not in (START, END):
            by_layer.setdefault(layer[name], []).append(name)
    rows = [[START]] if START in nodes else []
    for number in sorted(by_layer):
        names = by_layer[number]
        parts = math.ceil(len(names) / MAX_IN_ROW)
        size = math.ceil(len(names) / parts)
        rows += [names[at : at + size] for at in range(0, len(names), size)]
    if END in nodes:
        rows.append([END])
    return _untangled(rows, drawn)


def _likeliest_ways(nodes: Mapping[str, ShapeNode], drawn: Edges) -> dict[str, int]:
    """Steps from the start along the likeliest way."""
    after: dict[str, list[ShapeEdge]] = {}
    for edge in drawn.values():
        after.setdefault(edge.source, []).append(edge)
    far = len(nodes)
    best = dict.fromkeys(nodes, (math.inf, far))
    todo = [name for name in nodes if name == START] or list(nodes)[:1]
    best.update(dict.fromkeys(todo, (0.0, 0)))
    open_names = set(todo)
    while open_names:
        name = min(open_names, key=lambda n: (best[n], n))
        open_names.remove(name)
        cost, steps = best[name]
        for edge in after.get(name, ()):
            ahead = (cost - math.log(max(edge.probability, 1e-9)) + 1e-6, steps + 1)
            if ahead < best[edge.target]:
                best[edge.target] = ahead
                open_names.add(edge.target)
    return {name: steps for name, (_, steps) in best.items()}


def _longest_ways(nodes: Mapping[str, ShapeNode], drawn: Edges) -> dict[str, int]:
    """Steps from a beginning along the longest way, loops left out: what depends on something stands below it."""
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in drawn:
        after[source].append(target)
    forward: dict[str, list[str]] = {name: [] for name in nodes}
    order: list[str] = []
    state: dict[str, int] = {}
    led_to = {target for _, target in drawn}
    for start in [*(n for n in nodes if n not in led_to), *nodes]:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(after[start]))]
        while stack:
            name, targets = stack[-1]
            target = next(targets, "")
            if not target:
                stack.pop()
                state[name] = 2
                order.append(name)
            elif state.get(target) != 1:  # no way back
                forward[name].append(target)
                if target not in state:
                    state[target] = 1
                    stack.append((target, iter(after[target])))
    layer = dict.fromkeys(nodes, 0)
    for name in reversed(order):
        for target in forward[name]:
            layer[target] = max(layer[target], layer[name] + 1)
    return layer


def _untangled(rows: list[list[str]], drawn: Edges) -> list[list[str]]:
    """Each row in the order of the means of its neighbours' places; down and up, a few times."""
    near: dict[str, list[str]] = {}
    for source, target in drawn:
        near.setdefault(source, []).append(target)
        near.setdefault(target, []).append(source)
    places = {name: (at + 1) / (len(row) + 1) for row in rows for at, name in enumerate(row)}
    for sweep in range(_SWEEPS):
        for number in range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1):
            row = rows[number]
            wish = {name: _mean([places[n] for n in near.get(name, ())], places[name]) for name in row}
            row.sort(key=lambda name: (wish[name], places[name]))
            for at, name in enumerate(row):
                places[name] = (at + 1) / (len(row) + 1)
    return rows


def _mean(values: list[float], or_else: float) -> float:
    return sum(values) / len(values) if values else or_else
