"""Graphs in the terminal, readable at 80 columns: boxes for what is frequent, arrows with probabilities and gaps."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.text import Text

from saga.contract.workflow_messages import ClassFacts, Shape, ShapeEdge, ShapeNode, WorkflowFacts
from saga.drawing.lanes import Lane, Run, lanes_of, own_name
from saga.drawing.words import END, START, count, gap_words, percent, seconds, shortened, title_of, tool_word

WIDTH: Final = 78
NAME_WIDTH: Final = 40
BOXES: Final = 12  # tools of a class with a box; the rarer ones get a line
ARROWS: Final = 4  # of one box
LEAST: Final = 0.03
BAR: Final = 10
SESSIONS: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int = BAR) -> str:
    """A share as a bar, in eighths of a character; always `width` wide."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def class_text(shape: Shape) -> Iterable[Text]:
    """An agent class: each tool with what follows it."""
    nodes = {node.id: node for node in shape.nodes}
    edges: dict[str, list[ShapeEdge]] = {}
    for edge in shape.edges:
        edges.setdefault(edge.source, []).append(edge)
    for those in edges.values():
        those.sort(key=lambda e: (-e.probability, e.target))
    tools = sorted((n for n in shape.nodes if n.kind == "tool"), key=lambda n: (-n.probability, n.id))
    yield Text.assemble((shape.name, "bold"), f"   {len(tools)} tools, {count(shape.samples)} gaps and ends learnt")
    yield Text("per tool: share of steps; time until the next step, P50 · P90", style="dim")
    if START in nodes:
        yield Text()
        yield from _box(nodes[START], edges.get(START, []), nodes)
    for node in tools[:BOXES]:
        yield Text()
        yield from _box(node, edges.get(node.id, []), nodes)
    if len(tools) > BOXES:
        yield Text()
        yield Text(f"{len(tools) - BOXES} rarer tools, each with what mostly follows", style="dim")
    for node in tools[BOXES:]:
        most = next(iter(edges.get(node.id, [])), None)
        then = f"▶ {shortened(title_of(nodes[most.target]), 18)} {percent(most.probability)}" if most else ""
        name = shortened(title_of(node), 22)
        yield Text(f"  {name:<22} {percent(node.probability):>5}  {gap_words(node.gap_s):<18} {then}")
    if shape.left_out:
        yield Text(f"{shape.left_out} unlikely nodes and arrows were left out by the graph service", style="dim")


def _box(node: ShapeNode, edges: list[ShapeEdge], nodes: dict[str, ShapeNode]) -> Iterable[Text]:
    name = shortened(title_of(node), 26)
    if node.kind == "tool":
        gaps = gap_words(node.gap_s)
        facts = f"{bar(node.probability)} {percent(node.probability):>5}" + (f"   {gaps}" if gaps else "")
    else:
        facts = ""
    inner = f" {name:<26} {facts}".ljust(WIDTH - 10)
    yield Text(f"╭{'─' * len(inner)}╮")
    yield Text.assemble("│", (inner[:28], "bold"), inner[28:], "│")
    drawn = [edge for edge in edges if edge.target in nodes and edge.probability >= LEAST][:ARROWS]
    drawn = drawn or [edge for edge in edges if edge.target in nodes][:1]
    yield Text(f"╰{'┬' if drawn else '─'}{'─' * (len(inner) - 1)}╯")
    for number, edge in enumerate(drawn):
        corner = "├" if number < len(drawn) - 1 else "└"
        again = "  ↻" if edge.target == edge.source else ""
        target = shortened(title_of(nodes[edge.target]), 24) + again
        gaps = gap_words(edge.gap_s) if edge.target != END else ""
        yield Text.assemble(
            f" {corner}─ {percent(edge.probability):>5} ",
            (bar(edge.probability), "cyan"),
            f"▶ {target:<28}",
            (gaps, "dim"),
        )


def workflow_text(facts: WorkflowFacts) -> Iterable[Text]:
    """A live workflow: its declaration, if any, then what its sessions did."""
    yield Text.assemble(
        (str(facts.root), "bold"),
        f"   {facts.steps} {_plural('step', facts.steps)} in {facts.sessions} {_plural('session', facts.sessions)}, ",
        f"silent for {seconds(facts.silent_s)}",
    )
    if facts.declared is not None:
        yield from _declared(facts, facts.declared)
    if facts.shape is None:
        return
    lanes = lanes_of(facts.shape)
    for lane in lanes[:SESSIONS]:
        yield from _lane(lane, facts.shape)
    if len(lanes) > SESSIONS:
        yield Text(f"and {len(lanes) - SESSIONS} more sessions", style="dim")


_FOLLOWS: Final = {
    "unstarted": "not begun",
    "yes": "follows its declaration",
    "lost": "has left its declaration for now",
    "no": "does not follow its declaration: only what is learnt counts",
    "undeclared": "",
}


def _declared(facts: WorkflowFacts, shape: Shape) -> Iterable[Text]:
    left = f"; about {facts.remaining_steps:.1f} steps left" if facts.remaining_steps >= 0 else ""
    name = f" as {facts.agent_class}" if facts.agent_class else ""
    yield Text(f"declared{name}: {_FOLLOWS[facts.follows]}{left}", style="dim")
    yield Text()
    following = {step.node for step in facts.next}
    edges: dict[str, list[ShapeEdge]] = {}
    for edge in shape.edges:
        edges.setdefault(edge.source, []).append(edge)
    for node in shape.nodes:
        mark = "●" if node.count else "▷" if node.id in following else "○"
        had = f"x{count(node.count)}" if node.count else ""
        does = f"calls {node.tool}" if node.tool else "calls no tool"
        by = f" · {node.session}" if node.session else ""
        yield Text.assemble(f" {mark} ", (f"{shortened(node.id, 24):<24}", "bold"), f" {had:<4} {does}{by}")
        those = edges.get(node.id, [])
        for number, edge in enumerate(those):
            corner = "├" if number < len(those) - 1 else "└"
            share = f" {percent(edge.probability):>5} {bar(edge.probability, 5)}" if edge.probability < 1 else "─" * 12
            yield Text(f"   {corner}─{share}▶ {shortened(edge.target, 40)}")


def _lane(lane: Lane, shape: Shape) -> Iterable[Text]:
    indent = "   " * min(lane.depth, 6)
    corner = "└─ " if lane.depth else ""
    name = shortened(own_name(lane.session, shape.tenant), 40) or "main"
    yield Text()
    head = indent[3:] + corner if lane.depth else ""
    yield Text.assemble(head, (name, "bold"), f"   {lane.steps} {_plural('step', lane.steps)}")
    if lane.left_out:
        yield Text(f"{indent}  … {lane.left_out} earlier", style="dim")
    line = indent + "  "
    for number, run in enumerate(lane.runs):
        gap = f" ─{seconds(run.gap_s)}─▶ " if run.gap_s >= 0 else " ─▶ "
        piece = (gap if number else "") + _run(run)
        if len(line) + len(piece) > WIDTH:
            yield Text(line)
            line = indent + "  " + piece.lstrip()
        else:
            line += piece
    yield Text(line)


def _run(run: Run) -> str:
    name = shortened(tool_word(run.tool), 24)
    return f"[{name}]" if run.steps == 1 else f"[{name} x{run.steps}]"


def _plural(word: str, number: float) -> str:
    return word if number == 1 else word + "s"


def classes_text(rows: Sequence[ClassFacts], now_at: float) -> Iterable[Text]:
    """What is learnt, in a list: a line of figures for each, and one of tools."""
    yield Text(_row("learnt of", "gaps", "P50", "P90", "steps", "age"), style="bold")
    for facts in rows:
        figures = (
            count(facts.samples),
            seconds(facts.gap_p50_s) if facts.gap_p50_s >= 0 else "-",
            seconds(facts.gap_p90_s) if facts.gap_p90_s >= 0 else "-",
            f"{facts.steps:.1f}" if facts.steps else "-",
            seconds(max(0.0, now_at - facts.learnt_until_at)) if facts.learnt_until_at else "-",
        )
        if len(facts.name) > NAME_WIDTH:
            yield Text(facts.name)
            yield Text(_row("", *figures))
        else:
            yield Text(_row(facts.name, *figures))
        more = f" and {facts.tools_seen - len(facts.tools)} more" if facts.tools_seen > len(facts.tools) else ""
        if facts.tools:
            yield Text("  " + shortened(", ".join(facts.tools), WIDTH - 2 - len(more)) + more, style="cyan")
    yield Text()
    yield Text("gaps: from a step to the next, learnt from; steps: mean of a session,", style="dim")
    yield Text("age: of the newest step; then the tools, most called first", style="dim")


def _row(name: str, *figures: str) -> str:
    widths = (7, 8, 8, 7, 8)
    return f"{name:<{NAME_WIDTH}}" + "".join(
        f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True)
    )
