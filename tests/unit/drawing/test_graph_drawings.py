"""Drawings of graphs: readable in a terminal of 80 columns, self-contained as SVG, the same for the same graph."""

import itertools
from random import Random
from xml.etree import ElementTree as ET

import pytest
from rich.cells import cell_len

from saga.cli.graph_text import bar, class_text, classes_text, workflow_text
from saga.contract.ids import RootId, TenantId
from saga.contract.workflow_messages import ClassFacts, NextStep, Shape, ShapeEdge, ShapeNode, WorkflowFacts
from saga.drawing.lanes import lanes_drawn, lanes_of
from saga.drawing.layers import layered
from saga.drawing.scene import Arrow, Box, labelled
from saga.drawing.svg import svg
from saga.drawing.words import percent, seconds, shortened

SVG = "{http://www.w3.org/2000/svg}"
LONG = "a_tool_with_a_name_that_is_much_too_long_for_a_box"


def quantiles(median_s):
    return tuple(median_s * factor for factor in (0.1, 0.2, 0.5, 1, 3, 10, 20, 60))


def class_of(tools, seed=1):
    """A class with so many tools, each of which may follow each."""
    rng = Random(seed)
    names = ["", "bash", "read", LONG, "<&>", *(f"tool_{n}" for n in range(tools))][:tools]
    weights = [1 / (n + 1) for n in range(len(names))]
    ids = {name: name or "~none" for name in names}
    nodes = [ShapeNode("~start", "start", "")]
    nodes += [
        ShapeNode(ids[name], "tool", name, 100 * w, w / sum(weights), quantiles(rng.uniform(0.01, 900)) if name else ())
        for name, w in zip(names, weights, strict=True)
    ]
    nodes += [ShapeNode("~end", "end", ""), ShapeNode("class:0123456789abcdef", "start", "")]
    edges = [ShapeEdge(ids[names[-1]], "class:0123456789abcdef", "spawn", 0.3, 3)]
    for source in ("~start", *ids.values()):
        drawn = [w * rng.random() for w in weights]
        whole = sum(drawn) * 1.1
        edges += [
            ShapeEdge(source, ids[name], "next", p / whole, 100 * p, quantiles(1.0))
            for name, p in zip(names, drawn, strict=True)
        ]
        edges.append(ShapeEdge(source, "~end", "next", 1 - sum(drawn) / whole, 1.0))
    return Shape("class/default/3f2a91bc77d0e1f2", "class", "default", tuple(nodes), tuple(edges), 4_211)


def workflow(*steps):
    """Steps as (session, tool, parent)."""
    nodes, edges, last = [], [], {}
    for number, (session, tool, parent) in enumerate(steps):
        name = f"step-{number}"
        nodes.append(ShapeNode(name, "step", tool, prompt_tokens=1e3, engine_s=0.5, session=session, parent=parent))
        if session in last:
            edges.append(ShapeEdge(last[session], name, "next", gap_s=(1.5,)))
        elif parent in last:
            edges.append(ShapeEdge(last[parent], name, "spawn"))
        last[session] = name
    return Shape("t/w", "workflow", "t", tuple(nodes), tuple(edges), samples=len(nodes))


FAMILY = workflow(
    ("t/w", "bash", ""),
    ("t/w", "bash", ""),
    ("t/w", "task", ""),
    ("t/w/a", "read", "t/w"),
    ("t/w/b", "grep", "t/w"),
    ("t/w/a/x", "", "t/w/a"),
    ("t/w/a", "", "t/w"),
    ("t/w", "", ""),
)
DECLARED = Shape(
    "t/w",
    "workflow",
    "t",
    (
        ShapeNode("plan", "step", "bash", 1.0, 1.0),
        ShapeNode("work", "step", "edit", 0.0, 1.0, session="worker"),
        ShapeNode("answer", "step", "", 0.0, 0.6),
    ),
    (
        ShapeEdge("plan", "work", "declared", 1.0),
        ShapeEdge("work", "plan", "declared", 0.25),
        ShapeEdge("work", "answer", "declared", 0.75),
    ),
)


def facts_of(shape, declared=None, **fields):
    return WorkflowFacts(
        root=RootId("t/w"), tenant=TenantId("t"), steps=8, sessions=3, shape=shape, declared=declared, **fields
    )


def lines_of(texts):
    return [text.plain for text in texts]


@pytest.mark.parametrize("tools", [1, 3, 12, 32])
def test_a_class_in_the_terminal_fits_into_80_columns(tools):
    lines = lines_of(class_text(class_of(tools)))
    assert max(cell_len(line) for line in lines) <= 80
    text = "\n".join(lines)
    assert f"{tools} tools" in text
    assert text.count("╭") == min(tools, 12) + 1
    assert "no tool" in text
    if tools >= 2:
        assert "bash" in text
        assert "▶ bash" in text


def test_a_box_tells_the_share_the_gaps_and_what_follows():
    nodes = (
        ShapeNode("~start", "start", ""),
        ShapeNode("bash", "tool", "bash", 10, 0.6, quantiles(1.2)),
        ShapeNode("edit", "tool", "edit", 5, 0.4, quantiles(0.2)),
        ShapeNode("~end", "end", ""),
    )
    edges = (
        ShapeEdge("bash", "edit", "next", 0.75, 8, quantiles(1.2)),
        ShapeEdge("bash", "bash", "next", 0.2, 2, quantiles(3.0)),
        ShapeEdge("bash", "~end", "next", 0.05, 1),
    )
    text = "\n".join(lines_of(class_text(Shape("class/t/c", "class", "t", nodes, edges, 15))))
    box = text[text.index("│ bash") :]
    for wanted in ("60 %", "1.2 s · 12 s", "75 %", "▶ edit", "▶ bash  ↻", "3.0 s · 30 s", "▶ end"):
        assert wanted in box
    assert box.index("75 %") < box.index("20 %") < box.index("   5 %")


def test_a_workflow_in_the_terminal_has_its_sub_agents_below_their_parents():
    lines = lines_of(workflow_text(facts_of(FAMILY)))
    assert max(map(cell_len, lines)) <= 80
    starts = {name: next(n for n, line in enumerate(lines) if line.strip("└─ ").startswith(f"{name} ")) for name in "w"}
    order = [line.strip("└─ ").split()[0] for line in lines if "step" in line and "silent" not in line]
    assert order == ["w", "w/a", "w/a/x", "w/b"]
    assert lines[starts["w"] + 1].strip() == "[bash x2] ─1.5 s─▶ [task] ─1.5 s─▶ [no tool]"
    indents = {line.strip("└─ ").split()[0]: len(line) - len(line.lstrip("└─ ")) for line in lines if "step" in line}
    assert indents["w/a/x"] > indents["w/a"] == indents["w/b"] > indents["w"]


def test_a_declared_workflow_shows_where_it_stands():
    facts = facts_of(None, DECLARED, follows="yes", next=(NextStep(node="work", tool="edit"),), remaining_steps=3.3)
    text = "\n".join(lines_of(workflow_text(facts)))
    assert "3.3 steps left" in text
    assert "● plan" in text
    assert "▷ work" in text
    assert "○ answer" in text
    assert "75 %" in text
    assert "worker" in text


def test_the_list_of_classes_fits_into_80_columns():
    rows = [
        ClassFacts(name="class/t/" + "x" * 60, samples=123_456, tools=("y" * 48,) * 8, tools_seen=31, gap_p50_s=1.0),
        ClassFacts(name="all", samples=0),
    ]
    lines = lines_of(classes_text(rows, 5.0))
    assert max(cell_len(line) for line in lines) <= 80
    assert any(line.endswith("and 23 more") for line in lines)


@pytest.mark.parametrize("tools", [1, 3, 12, 32])
def test_a_class_as_svg_stands_alone_and_is_the_same_each_time(tools):
    text = svg([layered(class_of(tools))], "a <name> & more")
    assert text == svg([layered(class_of(tools))], "a <name> & more")
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    width, height = float(root.get("width")), float(root.get("height"))
    assert width < 1_300
    assert [e for e in root.iter() if e.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}a", f"{SVG}foreignObject")] == []
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in text
    assert "prefers-color-scheme" in text
    assert "currentColor" in text
    for box in root.iter(f"{SVG}rect"):
        assert float(box.get("x") or 0) + float(box.get("width")) <= width
        assert float(box.get("y") or 0) + float(box.get("height")) <= height


@pytest.mark.parametrize("tools", [1, 3, 12, 32])
def test_no_two_boxes_cover_each_other_and_each_tool_has_one(tools):
    shape = class_of(tools)
    scene = layered(shape)
    assert len(scene.boxes) == len(shape.nodes)
    for one, other in itertools.combinations(scene.boxes, 2):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y


def test_likely_arrows_are_wider_and_lead_down_from_start_to_end():
    scene = layered(class_of(3))
    boxes = {box.title: box for box in scene.boxes}
    assert boxes["start"].y < boxes["bash"].y < boxes["end"].y
    assert boxes["sub-agent 01234567"].y > boxes["start"].y
    weights = {arrow.label: arrow.weight for arrow in scene.arrows if arrow.label}
    assert weights == {label: pytest.approx(float(label[:-2]) / 100, abs=0.006) for label in weights}


def test_what_depends_on_something_stands_below_it():
    shape = Shape(
        "t/w",
        "workflow",
        "t",
        tuple(ShapeNode(name, "step", "") for name in "abcd"),
        tuple(
            ShapeEdge(a, b, "declared", p)
            for a, b, p in (("a", "d", 1), ("a", "b", 1), ("b", "c", 1), ("c", "d", 1), ("d", "a", 0.5))
        ),
    )
    places = {box.title: box.y for box in layered(shape).boxes}
    assert places["a"] < places["b"] < places["c"] < places["d"]


def test_sub_agents_have_lanes_below_their_parents():
    assert [(lane.session, lane.depth) for lane in lanes_of(FAMILY)] == [
        ("t/w", 0),
        ("t/w/a", 1),
        ("t/w/a/x", 2),
        ("t/w/b", 1),
    ]
    text = svg([layered(DECLARED), lanes_drawn(FAMILY)], "t/w")
    ET.fromstring(text)
    assert "w/a/x: 1 step" in text


def test_parents_that_are_their_own_do_no_harm():
    loop = workflow(("t/a", "x", "t/a"), ("t/b", "x", "t/gone"))
    assert [lane.session for lane in lanes_of(loop)] == ["t/a", "t/b"]


def test_long_and_wide_workflows_are_bounded():
    rng = Random(3)
    many = workflow(*((f"t/{n % 40}", rng.choice(["a", "b"]), "") for n in range(512)))
    assert len(lanes_drawn(many).boxes) <= 24 * 60
    long = workflow(*(("t/w", "ab"[n % 2], "") for n in range(512)))
    assert len(lanes_drawn(long).boxes) == 60
    assert lanes_of(long)[0].left_out == 452
    assert lanes_drawn(workflow()).boxes == ()


def test_labels_avoid_boxes_and_each_other():
    arrows = [Arrow((0.0, 0.0, 0.0, 100.0, 0.0, 200.0, 0.0, 300.0), 0.5, "50 %") for _ in range(3)]
    placed = labelled(arrows, [Box(-50, 60, 100, 60, "in the way")])
    heights = sorted(arrow.label_at[1] for arrow in placed)
    assert all(after - before >= 14 for before, after in itertools.pairwise(heights))
    assert not [y for y in heights if 53 < y < 127]


@pytest.mark.parametrize(
    ("value", "said"),
    [(-1, "?"), (0, "0 ms"), (0.0421, "42 ms"), (0.9996, "1.0 s"), (9.96, "10 s"), (99.6, "2 min"), (7_200, "2.0 h")],
)
def test_durations(value, said):
    assert seconds(value) == said


def test_shares_and_names():
    assert [percent(share) for share in (0, 0.001, 0.005, 0.5, 1)] == ["0 %", "<1 %", "<1 %", "50 %", "100 %"]
    assert [len(bar(share)) for share in (-1, 0, 0.33, 1, 2)] == [10] * 5
    assert bar(1.0) == "█" * 10
    assert shortened("abcdefgh", 5) == "ab…gh"
    assert shortened("abc", 5) == "abc"
