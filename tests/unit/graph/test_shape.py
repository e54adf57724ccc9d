"""The published tuple, of a class and of a workflow: steps, dependencies, probabilities, tools."""

import pytest
from graph_story import core, finished, ready, tell

from saga.contract.ids import RootId
from saga.contract.messages import GAP_SHARES
from saga.graph.models import START
from saga.graph.shape import END, NONE


def taught():
    """Ten workflows: read, bash, answer; the seventh and on answer after reading. Each bash starts an explorer."""
    state = core()
    for n in range(10):
        root = f"r{n}"
        tell(state, finished("1", root, tools=("read",)), 100.0 * n)
        if n < 6:
            tell(state, ready("2", root, gap_s=2.0), 100.0 * n + 2)
            tell(state, finished("2", root, tools=("bash",), gap_s=2.0), 100.0 * n + 3)
            tell(state, finished("e", root, session=f"{root}/e", parent=root, agent_class="explorer"), 100.0 * n + 4)
        tell(state, finished("3", root, tools=(), gap_s=8.0, final=True), 100.0 * n + 20)
    return state


def test_a_class_has_tools_gaps_and_an_end():
    shape = taught().class_shape("class/t/coder")
    nodes = {node.id: node for node in shape.nodes}
    assert (shape.kind, shape.tenant) == ("class", "t")
    assert nodes.keys() == {START, END, "read", "bash", NONE, "class:explorer"}
    assert nodes["read"].count == 10
    assert sum(node.probability for node in shape.nodes if node.kind == "tool") == pytest.approx(1.0)
    assert len(nodes["read"].gap_s) == len(GAP_SHARES)
    edges = {(edge.source, edge.target): edge for edge in shape.edges}
    assert edges[START, "read"].probability == 1.0
    assert edges["read", "bash"].probability == pytest.approx(0.6)
    assert edges["read", "bash"].gap_s[3] == pytest.approx(2.0, rel=0.03)
    assert edges["read", NONE].probability == pytest.approx(0.4)
    assert edges["read", NONE].gap_s[3] == pytest.approx(8.0, rel=0.03)
    assert edges[NONE, END].probability == 1.0
    assert (edges["bash", "class:explorer"].kind, edges["bash", "class:explorer"].count) == ("spawn", 6)
    assert {end for edge in shape.edges for end in (edge.source, edge.target)} <= nodes.keys()


def test_edges_of_a_tool_sum_to_one():
    for name in taught().models:
        sums = {}
        for edge in taught().class_shape(name).edges:
            if edge.kind == "next":
                sums[edge.source] = sums.get(edge.source, 0.0) + edge.probability
        assert sums == pytest.approx(dict.fromkeys(sums, 1.0))


def test_a_workflow_has_its_steps_and_sub_agents_below_their_parent():
    state = core()
    tell(state, finished("1", tools=("read",), gap_s=-1.0), 0.0)
    tell(state, ready("2", gap_s=2.0), 2.0)
    tell(state, finished("2", gap_s=2.0), 3.0)
    tell(state, finished("e", session="r/e", parent="r", agent_class="explorer"), 4.0)
    shape = state.workflow_shape(RootId("r"))
    assert [(node.id, node.tool, node.session, node.parent) for node in shape.nodes] == [
        ("1", "read", "r", ""),
        ("2", "bash", "r", ""),
        ("e", "bash", "r/e", "r"),
    ]
    assert [(edge.source, edge.target, edge.kind, edge.gap_s) for edge in shape.edges] == [
        ("1", "2", "next", (2.0,)),
        ("2", "e", "spawn", ()),
    ]
    assert shape.samples == 3


def test_what_is_not_known_has_no_shape():
    assert core().class_shape("class/t/nobody") is None
    assert core().workflow_shape(RootId("nobody")) is None
